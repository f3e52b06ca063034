"""The list of wires that `make mutate` cuts fits the tree; the cuts themselves take too long for every run."""

from __future__ import annotations

import mutate
import pytest


@pytest.mark.parametrize("cut", mutate.read_cuts(), ids=lambda cut: cut.cut)
def test_each_cut_can_be_made(cut: mutate.Cut) -> None:
    text = (mutate.ROOT / cut.file).read_text()
    assert text.count(cut.old) == 1 and cut.new != cut.old
    assert all((mutate.ROOT / word).exists() for word in cut.tests.split() if word.startswith("tests/"))
