"""From two folders to a search: the commands of the page, on rendered crops whose identities nobody tells them."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
import torch
from doc_blocks import ROOT, Block, blocks_of, execute, write_crops

from dnreid_plugins import Matcher
from dnreid_plugins.functional.ranking.metrics import rank_features

PAGE = blocks_of((ROOT / "docs" / "your-own-images.md").read_text())
WAY = next(block.code.splitlines() for block in PAGE if block.runs)
#: By chance a quarter of the first matches are right.
IDENTITIES = 4


@pytest.mark.slow
@pytest.mark.parametrize("world", [None, "wild"])
def test_the_way_of_the_page_finds_the_same_objects(world: str | None, tmp_path: Path) -> None:
    hidden = write_crops(tmp_path, identities=IDENTITIES, world=world)
    said = {shlex.split(line)[1]: execute(Block("bash", line), tmp_path) for line in WAY}
    assert "Training can start." in said["check"] and "there is no mAP" in said["check"]
    assert "without identities" in said["train"] and "Nothing was scored" in said["train"]
    lists_all_images(tmp_path, hidden)
    search = next(line for line in WAY if " search " in line)
    execute(Block("bash", search.replace("matches.html", "matches.json")), tmp_path)
    rows = json.loads((tmp_path / "matches.json").read_text())["matches"]
    first = [row for row in rows if row["rank"] == 1]
    assert len(first) == sum(path.startswith("mycrops/day") for path in hidden)
    right = [
        identity(row["query"], tmp_path, hidden) == identity(row["match"], tmp_path, hidden) for row in first
    ]
    assert sum(right) >= 0.6 * len(right)
    assert sum(right) / len(right) == pytest.approx(rank_1(tmp_path, hidden))
    assert (tmp_path / "matches.html").stat().st_size > 10_000


def rank_1(home: Path, hidden: dict[str, str]) -> float:
    """What the metric says of the run's features, day to night, with the identities that the run was not told."""
    matcher = Matcher.load(home / "runs" / "first")
    features, ids = [], []
    for domain in ("day", "night"):
        paths = [path for path in hidden if path.startswith(f"mycrops/{domain}/")]
        features.append(matcher.embed([home / path for path in paths], domain))
        ids.append(torch.tensor([int(hidden[path]) for path in paths]))
    return float((rank_features(*features, *ids).first_rank == 0).mean())


def lists_all_images(home: Path, hidden: dict[str, str]) -> None:
    """``clusters.csv`` lists every image once."""
    with (home / "runs" / "first" / "clusters.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = [(home / row["path"]).resolve().relative_to(home.resolve()) for row in rows]
    assert sorted(map(str, places)) == sorted(hidden)


def identity(path: str, home: Path, hidden: dict[str, str]) -> str:
    return hidden[str((home / path).resolve().relative_to(home.resolve()))]
