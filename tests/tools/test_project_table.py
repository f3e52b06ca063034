from __future__ import annotations

import make_project_table as table
import pytest

PROJECTS = [
    "FastAttr",
    "FastClas",
    "FastDistill",
    "FastFace",
    "FastRetri",
    "FastTune",
    "NAIC20",
    "PartialReID",
]


def test_the_document_names_every_project() -> None:
    text = table.document(table.sources())
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == PROJECTS


def test_a_test_without_a_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="test_x needs a docstring that begins with one of"):
        table.project('"""Mini: m."""\ndef test_x():\n    """Works."""\n')
    with pytest.raises(ValueError, match="begins with 'Project: '"):
        table.project("")
    title, found = table.project('"""Mini: m."""\ndef test_x():\n    """Runs: all\n    of it."""\n')
    assert title == "Mini: m." and found == {"Runs": ["All of it."], "Patched": [], "Dead upstream": []}
