"""The changes that `make mutate` tries in functional code, and which tests it asks."""

from __future__ import annotations

import random
from pathlib import Path

import mutants

TEXT = '''
"""A docstring - of two words."""

from __future__ import annotations


def scaled(x: int | None, *, by: float = 2.0) -> int | None:
    """x - 1 or None."""
    if x is None:
        return None
    return x * by
'''


def test_what_no_run_reads_is_left_alone() -> None:
    found = list(mutants.changes(TEXT, random.Random(0)))
    assert len(found) == len(set(found)) == 4  # is, 2.0, *, and the condition negated
    for changed in found:
        lines = [
            (old, new) for old, new in zip(TEXT.splitlines(), changed.splitlines(), strict=True) if old != new
        ]
        assert len(lines) == 1 and "x - 1" not in lines[0][0] and "docstring" not in lines[0][0]
    assert not any("-> int | None" not in changed for changed in found)
    assert mutants.without_annotations(TEXT) == mutants.without_annotations(TEXT.replace("int", "float"))


def test_a_module_has_the_tests_that_import_from_it() -> None:
    losses = Path("dnreid_plugins/functional/losses")
    assert "tests/functional/test_mmd.py" in mutants.tests_of(losses / "mmd.py")
    assert "tests/functional/test_mmd.py" not in mutants.tests_of(losses / "triplets.py")
    kernels = mutants.tests_of(losses.parent / "ranking" / "_kernels.py")
    assert "tests/functional/test_ranking.py" in kernels
    matcher = Path("dnreid_plugins/modeling/matchers/dictionary.py")
    assert "tests/modeling/matchers/test_dictionary_matcher.py" in mutants.tests_of(matcher)
    for folder in ("losses", "matching"):
        for path in (mutants.ROOT / "dnreid_plugins" / "functional" / folder).glob("[a-z]*.py"):
            assert mutants.tests_of(path.relative_to(mutants.ROOT)), path
