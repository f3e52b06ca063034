"""Every table of rows in the documents is what its store gives: the same runs, of one code, to the last digit."""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from dnreid_plugins.data.digest import short_hash
from dnreid_plugins.report.ablation import Results, markdown
from dnreid_plugins.report.runs import plan
from dnreid_plugins.report.store import read_json
from dnreid_plugins.report.tables import Table, load_table

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"<!-- table (?P<name>\S+) ?(?P<protocol>\S*) begin -->\n(?P<text>.*?\.\*)\n", re.DOTALL)
PROTOCOLS = {"protocol2": "DNMini/protocol2", "protocol": "DNMiniWild/protocol", "": ""}
PUBLISHED = [
    pytest.param(path, block, id=f"{path.parent.name}-{block['name']}-{block['protocol']}")
    for home in ("docs", "projects")
    for path in sorted((ROOT / home).rglob("*.md"))
    for block in BLOCK.finditer(path.read_text(encoding="utf-8"))
]


def table_of(page: Path, block: re.Match[str]) -> Table:
    """The table whose place this is, which may be measured by another protocol than its own."""
    found = []
    for home in sorted(ROOT.glob("*/*/tables.yml")):
        with contextlib.suppress(ValueError):
            found.append(load_table(ROOT, home.parent.name, block["name"]))
    protocol = PROTOCOLS[block["protocol"]]
    for table in sorted(found, key=lambda one: one.protocol != protocol):
        if table.readme == page:
            return replace(table, protocol=protocol)
    raise AssertionError(f"{page} has a table {block['name']} that no tables.yml lists")


@pytest.mark.parametrize(("page", "block"), PUBLISHED)
def test_a_published_table_is_what_its_store_gives(scratch: None, page: Path, block: re.Match[str]) -> None:
    table = table_of(page, block)
    renderings = re.search(r"renderings? ([0-9, ]+)", block["text"])
    assert renderings, "a caption names the renderings"
    data_seeds = [int(seed) for seed in renderings[1].split(",")]
    most = max(int(one) for one in re.findall(r"\| (\d+) +\|(?:[^|\n]*\|)?$", block["text"], re.MULTILINE))
    runs = plan(ROOT, table, data_seeds=data_seeds, seeds=range(most // len(data_seeds)))
    assert markdown(Results(table, runs, read_json(table.store))) == block["text"]


def test_an_older_code_stands_under_its_own_key() -> None:
    stores = {table.with_name("results.json") for table in ROOT.glob("*/*/tables.yml")}
    for store in sorted(path for path in stores if path.is_file()):
        kept = json.loads(store.read_text())
        for key, one in kept.items():
            head, _, code = key.partition("-")
            assert not code or (code == short_hash(one["code"]) and kept[head]["code"] != one["code"])
