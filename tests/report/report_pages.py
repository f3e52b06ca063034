"""What the tests of report pages share: a tiny run through the command line, and a reader of its page."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from dnreid_plugins import cli
from dnreid_plugins.commands.app import main

TESTS = Path(__file__).resolve().parents[1]


def run_tiny(folder: Path, root: Path, *opts: str, config: str = "tiny.yml") -> Path:
    """A tiny run with its report, as ``tools/train_net.py`` does it; returns its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(root))
        words = ["--config-file", str(TESTS / config), "OUTPUT_DIR", str(folder), "REPORT.ENABLED", "True"]
        cli.main([*words, *opts])
    return folder


@dataclass
class ShownList:
    """A rank list of a page: its AP, the ranks of all correct images, and ``(rank, correct)`` of each tile."""

    search: str
    ap: float
    correct_ranks: list[int]
    tiles: list[tuple[str, bool]] = field(default_factory=list)


class Page(HTMLParser):
    """What a page says, read as a browser would."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, Any]]] = []
        self.lists: list[ShownList] = []
        self.table: dict[tuple[str, str, str, str], str] = {}
        self.words: list[str] = []
        self._search = self._set = self._run = self._direction = self._metric = ""
        self.source = path.read_text()
        self.feed(self.source)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.tags.append((tag, found))
        self._search = found.get("data-search") or self._search
        self._set = found.get("data-set") or self._set
        if tag == "tr":
            self._run, self._direction = found.get("data-run") or "", found.get("data-direction") or ""
        self._metric = found.get("data-metric") or "" if tag in ("td", "tr", "th") else self._metric
        if "data-ap" in found:
            ranks = [int(word) for word in (found["data-correct-ranks"] or "").split()]
            self.lists.append(ShownList(self._search, float(found["data-ap"] or "nan"), ranks))
        if "data-rank" in found:
            self.lists[-1].tiles.append((found["data-rank"] or "", "right" in (found["class"] or "").split()))

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        key = (self._run, self._set, self._direction, self._metric)
        if self._metric and data.strip() and key not in self.table:
            self.table[key] = data.strip()

    @property
    def addresses(self) -> list[str]:
        """Everything that the page would load or link to."""
        names = ("src", "href", "srcset", "action", "data")
        return [str(value) for _, found in self.tags for name, value in found.items() if name in names]

    def count(self, tag: str) -> int:
        return sum(one == tag for one, _ in self.tags)


def dnreid(*words: str) -> str:
    """The command line; returns "" or the sentence with which it refuses."""
    try:
        main(words)
    except SystemExit as refused:
        return str(refused.code)
    return ""
