"""Tiny data sets on disk."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

WriteImages = Callable[[Path, Iterable[str]], None]


@pytest.fixture
def write_images() -> WriteImages:
    """``write_images(folder, relative paths)``: one small image each, all different."""

    def write(folder: Path, paths: Iterable[str]) -> None:
        for number, path in enumerate(paths):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(target)

    return write


@pytest.fixture
def dn_root(tmp_path: Path, write_images: WriteImages) -> Path:
    """A data root with ``dn348``: 3 training and 2 test identities, 2 day and 3 night images each."""
    root = tmp_path / "sets"
    lists = root / "dn348" / "train_test_split"
    lists.mkdir(parents=True)
    for split, ids in (("train", (7, 10, 9)), ("test", (3, 12))):
        for word, count in (("day", 2), ("night", 3)):
            paths = [f"{pid:05d}/{number:03d}.jpg" for pid in ids for number in range(count)]
            write_images(root / "dn348" / word, paths)
            (lists / f"{split}_list_{word}.txt").write_text("\n".join(reversed(paths)) + "\n")
    return root


@pytest.fixture(scope="session")
def global_states() -> Callable[[], tuple]:
    """The states of the three global generators, to be compared."""

    def states() -> tuple:
        numpy = np.random.get_state()
        return random.getstate(), numpy[1].tolist(), numpy[2], torch.get_rng_state().tolist()

    return states
