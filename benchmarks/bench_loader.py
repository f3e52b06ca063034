"""Reading images: this package's loader beside fast-reid's own, without and with kept images (``DATALOADER.CACHE``).

One process, all in turns, no workers, one thread; the shortest processor time of the turns, so that other work on the
machine counts less. JPEGs of made-up scenes, 200 to 480 pixels a side, are resized to 288 x 144, then padded, cropped,
flipped and erased at random (training), or only resized (extraction). fast-reid's part is its own `CommDataset`,
`read_image`, transforms and `fast_batch_collator`, freshly loaded without our patches, in the same order of images.
"first" is the first epoch with kept images, "later" any after it.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib.util
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from measure import Work, finish, parser, say
from PIL import Image

import dnreid_plugins  # noqa: F401  (patches fast-reid)

# isort: split
import fastreid.data.common as common
from fastreid.config import get_cfg

from dnreid_plugins.data.cache import open_pixels
from dnreid_plugins.data.items import DomainItem
from dnreid_plugins.data.loaders import build_inference_loader, build_train_loader
from dnreid_plugins.data.transforms import build_domain_transform

BATCH = 64


def write_images(folder: Path, count: int) -> None:
    """JPEGs of 200 to 480 pixels a side: patches of colour, edges and noise, half of them dark as at night."""
    rng = np.random.default_rng(0)
    for number in range(count):
        width, height = (int(side) for side in rng.integers(200, 480, 2))
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        scene = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        scene = scene * (0.4 if number % 2 else 1.0) + rng.normal(0, 6, scene.shape)
        Image.fromarray(scene.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=90)


def settings(mode: str) -> Any:
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [288, 144]
    for step in ("FLIP", "PADDING", "REA"):
        cfg.INPUT[step].ENABLED = True
    cfg.DATALOADER.NUM_WORKERS, cfg.TEST.IMS_PER_BATCH, cfg.DATALOADER.CACHE = 0, BATCH, mode
    return cfg


def items_of(folder: str) -> list[DomainItem]:
    return [DomainItem(str(path), 0, 0, n % 2) for n, path in enumerate(sorted(Path(folder).glob("*.jpg")))]


def ours(folder: str, mode: str, training: bool, later: bool) -> Work:
    """Job: one epoch of our loader; ``later``: after another one."""
    cfg, items = settings(mode), items_of(folder)
    transform = build_domain_transform(cfg, is_train=training)
    (pixels,) = open_pixels(cfg, items, transform)
    places = range(0, len(items), BATCH)
    if training:
        batches: Any = [[(i, i) for i in range(start, min(start + BATCH, len(items)))] for start in places]
        loader = build_train_loader(cfg, items, batches, transform=transform, pixels=pixels)
    else:
        loader = build_inference_loader(cfg, items, transform, pixels=pixels)
    if later:
        exhaust(loader)
    return timed(loader)


def fastreid(folder: str, training: bool) -> Work:
    """Job: the same batches through fast-reid's own functions."""
    read_image, build = fresh("fastreid.data.data_utils").read_image, fresh("fastreid.data.build")
    common.read_image = lambda path: read_image(path)
    data = common.CommDataset.__mro__[1](
        [tuple(item) for item in items_of(folder)],
        fresh("fastreid.data.transforms.build").build_transforms(settings("off"), is_train=training),
        relabel=True,
    )
    return timed(Batches(data, build.fast_batch_collator))


class Batches:
    """What torch's loader does without workers."""

    def __init__(self, data: Any, collate: Any) -> None:
        self.data, self.collate = data, collate

    def __iter__(self) -> Iterator[Any]:
        places = iter(range(len(self.data)))
        while batch := list(itertools.islice(places, BATCH)):
            yield self.collate([self.data[place] for place in batch])


def fresh(name: str) -> ModuleType:
    """A module of fast-reid loaded once more, as its file is; it asks for two names that are gone."""
    gone = sys.modules.setdefault("torch._six", ModuleType("torch._six"))
    gone.string_classes = str  # type: ignore[attr-defined]
    collections.Mapping = collections.abc.Mapping  # type: ignore[attr-defined]
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exhaust(loader: Iterable[Any]) -> int:
    return sum(len(batch["img_paths"]) for batch in loader)


def timed(loader: Iterable[Any]) -> Work:
    def work() -> dict[str, Any]:
        start = time.process_time()
        images = exhaust(loader)
        return {"cpu_seconds": time.process_time() - start, "images": images}

    return work


def works_of(folder: str, training: bool, later: dict[str, Work]) -> dict[str, Work]:
    """What one turn measures; ``later``: the same works in every turn."""
    peer, off = fastreid(folder, training), ours(folder, "off", training, False)
    return {"fast-reid": peer, "off": off, "first": ours(folder, "ram", training, False), **later}


def measured(folder: str, training: bool, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of processor time per image, by loader and turn."""
    later = {f"later, {mode}": ours(folder, mode, training, True) for mode in ("ram", "disk")}
    found: dict[str, list[float]] = {}
    for turn in range(repeats):
        for name, work in works_of(folder, training, later).items():
            one = work()
            found.setdefault(name, []).append(1000 * one["cpu_seconds"] / one["images"])
        say(f"  turn {turn + 1} of {repeats}")
    return found


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--images", type=int, default=512)
    args = options.parse_args()
    if args.quick:
        args.images, args.repeats = 12, 1
    args.threads = 1
    torch.set_num_threads(1)
    rows, raw = [], {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["DNREID_CACHE"] = str(Path(home) / "kept")
        folder = Path(home) / "images"
        folder.mkdir()
        write_images(folder, args.images)
        for what, training in (("training", True), ("extraction", False)):
            say(what)
            raw[what] = found = measured(str(folder), training, args.repeats)
            best = {name: min(each) for name, each in found.items()}
            for name, each in best.items():
                row = {"for": what, "loader": name, "ms per image": each, "images/s per core": 1000 / each}
                rows.append({**row, "x fast-reid": best["fast-reid"] / each})
    finish("loader", args, {"Processor time of an epoch": rows}, raw)


if __name__ == "__main__":
    main()
