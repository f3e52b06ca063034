"""A tiny model and a tiny list of images on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastreid.config import get_cfg
from PIL import Image
from pool_model import PoolModel

from dnreid_plugins.data.items import DomainItem


@pytest.fixture
def model() -> PoolModel:
    return PoolModel()


@pytest.fixture
def cfg() -> Any:
    cfg = get_cfg()
    cfg.INPUT.SIZE_TEST, cfg.DATALOADER.NUM_WORKERS, cfg.TEST.IMS_PER_BATCH = [8, 6], 0, 4
    return cfg


@pytest.fixture
def items(tmp_path: Path) -> list[DomainItem]:
    """5 identities x 2 images per domain, day first; the colour says who it is, with noise."""
    rng, result = np.random.default_rng(0), []
    colours = rng.integers(60, 200, (5, 3))
    for domain in (0, 1):
        for number in range(10):
            pixels = (colours[number // 2] + rng.normal(0, 25, (8, 6, 3))).clip(0, 255).astype(np.uint8)
            path = tmp_path / f"{domain}_{number}.png"
            Image.fromarray(pixels).save(path)
            result.append(DomainItem(str(path), number // 2, domain, domain))
    return result
