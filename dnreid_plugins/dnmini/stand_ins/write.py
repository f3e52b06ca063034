"""Render a stand-in: whole or not at all, marked as what it is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from fastreid.data.datasets import DATASET_REGISTRY
from PIL import Image

from ...data.datasets.counts import STAND_IN
from ...functional.types import Domain
from ...runtime.files import temporary_folder
from ..identity import Identity, sample_identities
from ..imaging import jpeg_bytes
from ..parallel import map_in_processes
from ..render import render
from .layouts import LAYOUTS, Layout


def write_stand_in(name: str, root: Path, *, seed: int = 0, workers: int | None = None) -> Path:
    """Render a stand-in of the data set ``name`` into its folder below ``root``; returns that folder.

    A few vehicles, persons' sets included; the bytes depend on ``name`` and ``seed`` alone. If the folder holds this
    stand-in already, nothing happens.

    Args:
        name: one of ``LAYOUTS``.
        root: the folder of all data sets, what ``$FASTREID_DATASETS`` is to name.
        seed: of the vehicles and views, 0 or more.
        workers: processes; None = one per core that this process may use.

    Raises:
        ValueError: there is no such set, or another copy of the set lies below ``root`` already.
        OSError: the folder cannot be written.
    """
    if name not in LAYOUTS:
        raise ValueError(f"there is no stand-in of {name!r}; choose one of {', '.join(LAYOUTS)}")
    if seed < 0:
        raise ValueError(f"the seed is {seed}; it must be 0 or more")
    layout = LAYOUTS[name]()
    mark = {"stand_in_of": name, "images": len(layout.images), "seed": seed}
    target = Path(root) / layout.folder
    if _read_mark(target) == mark:
        return target
    _refuse_other_copies(name, Path(root), target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_folder(target) as folder:
        _write_images(folder, layout, seed=seed, workers=workers)
        for path, text in layout.texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        (folder / STAND_IN).write_text(json.dumps(mark, indent=2) + "\n", encoding="utf-8")
        try:
            folder.rename(target)
        except OSError:  # another process finished first; its set is equally good if its mark is the same
            if _read_mark(target) != mark:
                raise
    return target


def _read_mark(folder: Path) -> Any:
    try:
        return json.loads((folder / STAND_IN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _refuse_other_copies(name: str, root: Path, target: Path) -> None:
    """A real set must neither be written into nor hidden by a stand-in that is found first."""
    folders = getattr(DATASET_REGISTRY.get(name), "folders", ())
    for folder in dict.fromkeys([target, *(root / other for other in folders)]):
        if folder.exists():
            raise ValueError(
                f"{str(folder)!r} is there already and is not this stand-in of {name}; give another folder for it"
            )


def _write_images(folder: Path, layout: Layout, *, seed: int, workers: int | None) -> None:
    count = max(identity for identity, *_ in layout.images.values())
    vehicles = sample_identities(count=count, seed=seed, half=0)
    views: dict[int, list[tuple[str, Domain, int]]] = {}
    for path, (identity, domain, view) in layout.images.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        views.setdefault(identity, []).append((path, domain, view))
    tasks = [(folder, vehicles[identity - 1], seed, identity, own) for identity, own in views.items()]
    for _ in map_in_processes(_write_identity, tasks, workers=workers):
        pass


def _write_identity(
    folder: Path, vehicle: Identity, seed: int, identity: int, views: list[tuple[str, Domain, int]]
) -> None:
    """All images of one vehicle; each has its own generator."""
    for path, domain, view in views:
        rng = np.random.default_rng([seed, int(domain), identity, view])
        picture = render(vehicle, rng, domain)
        (folder / path).write_bytes(_encoded(picture, path, domain, rng))


def _encoded(picture: np.ndarray, path: str, domain: Domain, rng: np.random.Generator) -> bytes:
    if path.endswith(".jpg"):
        return jpeg_bytes(picture, domain=domain, rng=rng)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format=path.rpartition(".")[2].upper())
    return buffer.getvalue()
