"""Every code block of the README and of the pages in ``docs`` says whether it is run, and is run if it says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_blocks import ROOT, RUN, SHOWN, Block, blocks_of, execute, write_crops

from dnreid_plugins.commands.app import COMMANDS

#: Made by tests of their own: this one is the user's way from two folders to a search.
ELSEWHERE = ("your-own-images.md",)
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]}
TO_RUN = [
    name for name, text in PAGES.items() if any(b.runs for b in blocks_of(text)) and name not in ELSEWHERE
]
#: Pages use this finished run of two epochs on ``mycrops``.
FIRST = "dnreid train cia --day mycrops/day --night mycrops/night --out runs/first --epochs 2"


@pytest.mark.parametrize("name", PAGES)
def test_every_block_says_what_it_is(name: str) -> None:
    blocks = blocks_of(PAGES[name])
    assert len(blocks) * 2 == len(re.findall(r"^```", PAGES[name], re.M)), "a fence is not closed"
    assert {block.language for block in blocks} <= {*RUN, *SHOWN}
    for block in blocks:
        assert not block.reason or block.language in RUN, "what is shown needs no reason"


@pytest.mark.parametrize("name", PAGES)
def test_pages_name_commands_that_exist(name: str) -> None:
    code = "\n".join(block.code for block in blocks_of(PAGES[name]) if block.language in ("", "bash"))
    assert set(re.findall(r"(?:^|[;&|] *|\$\()dnreid ([a-z-]+)", code, re.M)) <= set(COMMANDS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("reader")
    write_crops(home)
    if any("runs/first" in PAGES[name] for name in TO_RUN):
        execute(Block("bash", FIRST), home)
    return home


@pytest.mark.slow
@pytest.mark.parametrize("name", TO_RUN)
def test_the_blocks_of_a_page_run_in_their_order(name: str, home: Path) -> None:
    for block in blocks_of(PAGES[name]):
        if block.runs:
            execute(block, home)


def test_the_blocks_are_found_as_they_are_marked(tmp_path: Path) -> None:
    page = "```bash\necho one\n```\ntext\n<!-- not run: no -->\n```bash\nexit 3\n```\n```text\nx\n```\n"
    page += "```python\nprint('<b>')\n```\n```bash\nfalse\necho two\n```\n"
    blocks = blocks_of(page)
    assert [(block.language, block.runs) for block in blocks] == [
        ("bash", True),
        ("bash", False),
        ("text", False),
        ("python", True),
        ("bash", True),
    ]
    assert [execute(blocks[i], tmp_path) for i in (0, 3)] == ["one\n", "<b>\n"]
    with pytest.raises(AssertionError, match="echo two"):
        execute(blocks[-1], tmp_path)
