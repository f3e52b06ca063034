"""A table of images with their places on the maps, for tools that show embeddings."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, Any, NamedTuple

from ...runtime.files import write_atomically
from .maps import Points


class AtlasRow(NamedTuple):
    """An image on a map. ``identity`` and ``cluster`` are None where there is none, ``ap`` in percent."""

    path: str
    split: str
    dataset: str
    domain: str
    identity: str | None
    cluster: str | None
    x: float
    y: float
    ap: float | None


def write_atlas(path: Path, rows: list[AtlasRow], thumbnails: dict[str, bytes]) -> None:
    """Write ``rows`` as Parquet: their columns, and ``image``, a struct of the JPEG's ``bytes`` and its ``path``.

    Raises:
        ValueError: pyarrow is not installed, or no image is on a map.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError(
            f"A Parquet file needs pyarrow ({error}); install it with `pip install 'dnreid_plugins[export]'`."
        ) from None
    if not rows:
        raise ValueError(
            "No image of this run is on a map, so there is nothing to write; see its report for why."
        )
    columns: dict[str, Any] = {
        name: pa.array([_text(getattr(row, name)) for row in rows])
        for name in ("path", "split", "dataset", "domain", "identity", "cluster")
    }
    columns["cluster"] = pa.array([row.cluster for row in rows], pa.string())
    columns["identity"] = pa.array([row.identity for row in rows], pa.string())
    for name in ("x", "y", "ap"):
        columns[name] = pa.array([_number(getattr(row, name)) for row in rows], pa.float64())
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": thumbnails.get(row.path), "path": _text(Path(row.path).name)} for row in rows]
    columns["image"] = pa.array([one if one["bytes"] else None for one in images], kind)

    def write(file: IO[bytes]) -> None:
        pq.write_table(pa.table(columns), file)

    write_atomically(path, write)


def atlas_points(points: Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _text(value: str | None) -> str | None:
    """A file name that is not valid text cannot be UTF-8; its odd bytes are shown as they are printed."""
    return None if value is None else value.encode("utf-8", "backslashreplace").decode()


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
