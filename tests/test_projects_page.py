"""projects/README.md: every open point has its row, and the keys, parts and configs that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from fastreid.config import get_cfg

from dnreid_plugins.engine.stages import STAGE_REGISTRY
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY
from dnreid_plugins.runtime.config_files import known_keys
from dnreid_plugins.runtime.shipped import config_names

PAGE = (Path(__file__).resolve().parents[1] / "projects" / "README.md").read_text()
ROWS = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
POINTS = [row for row in ROWS if re.match(r" [UT]\d+ ", row[0])]
SYSTEMS = [row for row in ROWS if row not in POINTS and row[0].strip() not in ("system", "point")]


def named(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_every_open_point_has_one_row_of_four_cells() -> None:
    assert [row[0].split()[0] for row in POINTS] == [
        *(f"U{n}" for n in range(1, 30)),
        *(f"T{n}" for n in range(1, 14)),
    ]
    assert {len(row) for row in POINTS} == {4}


def test_the_keys_exist() -> None:
    keys = set(known_keys(get_cfg()))
    assert [key for row in POINTS for key in named(row[3]) if key not in keys] == []
    assert all(named(row[3]) or row[3].strip() == "none" for row in POINTS)


def test_parts_and_configs_of_the_systems_exist() -> None:
    parts, configs = {*LOSS_HEAD_REGISTRY.names(), *STAGE_REGISTRY._obj_map}, set(config_names())
    assert len(SYSTEMS) >= 8
    assert [part for row in SYSTEMS for part in named(row[2]) if part not in parts] == []
    assert [name for row in SYSTEMS for name in named(row[3]) if name not in configs] == []
