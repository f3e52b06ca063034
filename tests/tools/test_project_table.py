from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("make_project_table", ROOT / "tools" / "make_project_table.py")
assert spec
assert spec.loader
table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)

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


def test_the_document_is_up_to_date_and_names_every_project() -> None:
    text = table.DOCUMENT.read_text()
    assert text == table.document(table.sources()), "python tools/make_project_table.py"
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == PROJECTS


def test_a_test_without_a_verdict_is_refused() -> None:
    with pytest.raises(ValueError, match="test_x needs a docstring that begins with one of"):
        table.project('"""Mini: m."""\ndef test_x():\n    """Works."""\n')
    with pytest.raises(ValueError, match="begins with 'Project: '"):
        table.project("")
    title, found = table.project('"""Mini: m."""\ndef test_x():\n    """Runs: all\n    of it."""\n')
    assert title == "Mini: m." and found == {"Runs": ["All of it."], "Patched": [], "Dead upstream": []}
