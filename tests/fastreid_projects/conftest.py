"""What the miniatures share: pictures in class folders, and a run as a project's ``train_net.py`` does it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastreid.config import CfgNode

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def pictures(tiny_root: Path) -> list[tuple[str, str]]:
    """``(path, class)`` of the tiny DN-348's day images, 10 classes of 6."""
    return [(str(path), path.parent.name) for path in sorted((tiny_root / "dn348" / "day").glob("*/*.png"))]


@pytest.fixture
def cfg(supervised_cfg: CfgNode, as_fastreid: None) -> CfgNode:
    """A tiny supervised config where our parts stand in for fast-reid's."""
    supervised_cfg.SOLVER.MAX_EPOCH = 1
    return supervised_cfg


@pytest.fixture
def run() -> Run:
    """Train as a project does and give back ``results.json``."""

    def train(trainer: type[Any], cfg: CfgNode) -> dict[str, Any]:
        one = trainer(cfg)
        one.resume_or_load(resume=False)
        one.train()
        return json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())

    return train
