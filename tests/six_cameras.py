"""A tiny SYSU-MM01: ten persons, each two pictures under each of four visible and two infrared cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CAMERAS = {1: 0, 2: 0, 3: 1, 4: 0, 5: 0, 6: 1}
SPLITS = {"train": range(4), "val": range(4, 6), "test": range(6, 10)}


def write_six_cameras(root: Path) -> Path:
    """Six persons to train on, four to test on; returns the data set's folder."""
    rng, folder = np.random.default_rng(0), root / "SYSU-MM01"
    (folder / "exp").mkdir(parents=True)
    for split, ids in SPLITS.items():
        (folder / "exp" / f"{split}_id.txt").write_text(",".join(map(str, ids)) + "\n")
        for pid in ids:
            base = rng.uniform(40, 220, size=(4, 4, 3)).repeat(6, axis=0).repeat(6, axis=1)
            for camera, domain in CAMERAS.items():
                own = folder / f"cam{camera}" / f"{pid:04d}"
                own.mkdir(parents=True)
                for number in range(1, 3):
                    pixels = (0.5 if domain else 1.0) * base + rng.normal(0, 12, base.shape) + 3 * camera
                    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                    picture.save(own / f"{number:04d}.png")
    return folder
