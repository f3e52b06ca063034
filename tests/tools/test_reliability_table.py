from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import reliability_table as tool


def row(area: str, fault: str, tried: int, survived: int, lost: str = "", **more: Any) -> str:
    return json.dumps(
        {"area": area, "fault": fault, "tried": tried, "survived": survived, "lost": lost, **more}
    )


def test_rows_are_grouped_by_area_and_the_last_try_counts() -> None:
    text = "\n".join(
        [row("a", "x", 3, 1, "w"), row("b", "y", 2000, 2000), row("a", "z", 1, 1), row("a", "x", 4, 4)]
    )
    rows = tool.read_ledger(text)
    assert [(r["fault"], r["tried"]) for r in rows] == [("x", 4), ("z", 1), ("y", 2000)]
    written = tool.table(rows)
    assert (
        "| a | x | 4 | 4 | nothing |\n| a | z | 1 | 1 | nothing |\n| b | y | 2,000 | 2,000 | nothing |"
        in written
    )
    assert "| **all** | | **2,005** | **2,005** | **nothing** |" in written


def test_what_was_lost_is_said_and_bars_do_not_break_the_table() -> None:
    written = tool.table(
        tool.read_ledger(row("a", "x|y", 3, 2, "a row\nand | more", day="2026-01-02", where="w"))
    )
    assert "| a | x\\|y | 3 | 2 | a row and \\| more |" in written
    assert "**see the 1 rows**" in written and "Tried 2026-01-02; w." in written


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"area": "a"}', row("a", "x", 1, 2)])
def test_other_lines_are_refused(line: str) -> None:
    with pytest.raises(ValueError, match="Line 2 of the ledger"):
        tool.read_ledger(row("a", "x", 1, 1) + "\n" + line)


def test_the_command_writes_and_fails_where_something_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    document, ledger = tmp_path / "d.md", tmp_path / "l"
    document.write_text("<!-- reliability begin --><!-- reliability end -->\n")
    monkeypatch.setattr(sys, "argv", ["x", str(ledger), "--document", str(document)])
    assert tool.main() == 1 and "error: " in capsys.readouterr().err
    ledger.write_text(row("a", "x", 3, 2, "a row"))
    assert tool.main() == 1 and "not survived: x" in capsys.readouterr().out
    assert "| a | x | 3 | 2 | a row |" in document.read_text()
    ledger.write_text(row("a", "x", 3, 3))
    assert tool.main() == 0


def test_rows_of_the_table_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document, ledger = tmp_path / "d.md", tmp_path / "l"
    old = tool.table(tool.read_ledger("\n".join([row("a", "x|y", 2000, 1999, "w"), row("b", "z", 1, 1)])))
    document.write_text(f"<!-- reliability begin -->\n{old}\n<!-- reliability end -->\n")
    ledger.write_text("\n".join([row("b", "z", 5, 5), row("a", "new", 1, 1)]))
    monkeypatch.setattr(sys, "argv", ["x", str(ledger), "--document", str(document), "--keep"])
    assert tool.main() == 1
    found = [(r["area"], r["fault"], r["tried"], r["lost"]) for r in tool.rows_of(document.read_text())]
    assert found == [("a", "x|y", 2000, "w"), ("a", "new", 1, ""), ("b", "z", 5, "")]


def test_the_table_in_the_document_tells_of_no_loss() -> None:
    """What stands in docs/reliability.md is a ledger in which everything was survived."""
    text = tool.DOCUMENT.read_text(encoding="utf-8")
    inside = text.partition("<!-- reliability begin -->")[2].partition("<!-- reliability end -->")[0]
    rows = re.findall(
        r"^\| (?!area|\*\*)(.+?) \| (.+?) \| ([\d,]+) \| ([\d,]+) \| (.+) \|$", inside, re.MULTILINE
    )
    assert len(rows) >= 20
    assert [r for r in rows if r[2] != r[3] or r[4] != "nothing"] == []
