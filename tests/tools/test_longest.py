from __future__ import annotations

from pathlib import Path

import longest
import pytest


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dnreid_plugins").mkdir()
    (tmp_path / "dnreid_plugins" / "a.py").write_text(
        "def f():\n    return 1\n\n\nclass A:\n    def g(self):\n        x = 1\n        return x\n"
    )
    (tmp_path / "dnreid_plugins" / "b.py").write_text("x = 1\n")
    monkeypatch.setattr(longest, "ROOT", tmp_path)
    return tmp_path


def test_files_and_functions_are_counted_longest_first(house: Path) -> None:
    files, functions = longest.measure()
    assert files == [(8, "dnreid_plugins/a.py"), (1, "dnreid_plugins/b.py")]
    assert functions == [(3, "dnreid_plugins/a.py:6 g"), (2, "dnreid_plugins/a.py:1 f")]


@pytest.mark.parametrize(
    ("argument", "code"), [("--max-file=8", 0), ("--max-file=7", 1), ("--max-function=2", 1)]
)
def test_breaking_the_budget_fails(
    house: Path, monkeypatch: pytest.MonkeyPatch, argument: str, code: int
) -> None:
    monkeypatch.setattr("sys.argv", ["longest.py", argument])
    assert longest.main() == code
