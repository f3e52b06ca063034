"""The files of a gallery in the order that makes it valid at one moment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from . import backends, store


class Like(Protocol):
    """What is taken from an `Index`."""

    fingerprint: str
    kind: backends.Kind
    run: Path | None
    weights: str

    @property
    def structure(self) -> Any: ...

    def __len__(self) -> int: ...


def write_rows(
    folder: Path, entries: Sequence[store.Entry], blocks: store.Blocks, *, like: Like, grown: bool = False
) -> None:
    """Write features, images and search structure, then the manifest that makes them valid; for the only writer.

    Args:
        blocks: places in ``entries`` and their features; an entry that does not come is left out.
        like: kind, model and run are its.
        grown: the rows of ``like`` are the first ones, so its search structure can take the others.
    """
    written, places = store.write_features(folder, len(entries), blocks)
    files = {"features": written.name}
    files["images"] = store.write_entries(folder, [entries[place] for place in places]).name
    rows = np.load(written, mmap_mode="r")
    if like.kind != "flat":
        structure = _structure(like, rows, grown=grown)
        path = store.new_file(folder, store.SEARCH)
        backends.write(structure, path)
        files["search"] = path.name
    base = os.path.realpath(folder)
    run, weights = (
        store.relative(os.path.realpath(one), base) if one else "" for one in (like.run, like.weights)
    )
    about: dict[str, Any] = {"fingerprint": like.fingerprint, "run": run, "weights": weights}
    about |= {"count": len(rows), "dim": rows.shape[1], "kind": like.kind}
    store.write_manifest(folder, {**about, "files": files})


def _structure(like: Like, rows: Any, *, grown: bool) -> Any:
    known = backends.grown(like.kind, like.structure, rows[len(like) :]) if grown and len(like) else None
    return backends.build(like.kind, rows) if known is None else known
