"""Pages that are made from code are up to date, and the tools say so when they are not."""

from __future__ import annotations

import importlib
from pathlib import Path

import made_page
import pytest

PAGES = {"architecture", "config_list", "configuration", "gpu_page", "hardened_table", "project_table"}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_is_up_to_date(page: str) -> None:
    assert importlib.import_module(f"make_{page}").main(["--check"]) == 0, "run make docs"


def test_make_docs_makes_them_all() -> None:
    tools = {
        path.stem.removeprefix("make_")
        for path in (made_page.ROOT / "tools").glob("make_*.py")
        if "write_or_check" in path.read_text()
    }
    makefile = (made_page.ROOT / "Makefile").read_text()
    assert tools == PAGES and all(f"tools/make_{page}.py" in makefile for page in PAGES)


def test_a_page_is_written_or_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_page, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    assert made_page.write_or_check(page, lambda: "new", "about", ["--check"]) == 1 and not page.exists()
    assert made_page.write_or_check(page, lambda: "new", "about", []) == 0
    assert made_page.write_or_check(page, lambda: "new", "about", ["--check"]) == 0
    assert made_page.write_or_check(page, lambda: "newer", "about", ["--check"]) == 1
    assert page.read_text() == "new"


def test_only_the_part_between_the_markers_changes() -> None:
    begin, end = "<!-- part begin -->", "<!-- part end -->"
    before = f"text {begin} old {end} more"
    assert made_page.replace_part(before, "part", "new\n") == f"text {begin}\nnew\n{end} more"
    for broken in ("text", begin, end + begin, before + before):
        with pytest.raises(ValueError, match="put them back"):
            made_page.replace_part(broken, "part", "new")
