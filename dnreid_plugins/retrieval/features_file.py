"""Features and labels as a file for other programs."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..functional.types import Domain
from ..runtime.files import write_atomically
from .labelled import Labelled
from .tables import unicode_name

ENDINGS = (".parquet", ".npy", ".csv")
COLUMNS = ("path", "domain", "id", "camera")


def check_name(path: str | Path) -> None:
    """
    Raises:
        ValueError: the ending is none of `ENDINGS`, the folder is missing, or the library for it is not installed.
    """
    path = Path(path)
    if path.suffix not in ENDINGS or not path.parent.is_dir():
        raise ValueError(f"--out is {str(path)!r}; name a file {', '.join(ENDINGS)} in a folder that exists.")
    if path.suffix == ".parquet":
        try:
            importlib.import_module("pyarrow")
        except ImportError:
            raise ValueError(
                "A .parquet file needs pyarrow; run pip install 'dnreid_plugins[export]', or take .csv."
            ) from None


def write_features(path: str | Path, images: Labelled) -> list[Path]:
    """Write one row per image: path, domain, identity, camera and the unit feature.

    ``.parquet`` has a column ``feature`` of float32 lists; ``.csv`` has the columns ``f0 ... f<D-1>``; ``.npy`` holds
    ``(N, D)`` float32, and a ``.csv`` beside it the labels in the same order. Returns the files.
    """
    path = Path(path)
    check_name(path)
    labels = [
        (unicode_name(one), Domain(int(domain)).word, str(name), camera)
        for one, domain, name, camera in zip(images.paths, images.domains, images.ids, images.cameras)
    ]
    features = np.ascontiguousarray(images.features, dtype=np.float32)
    if path.suffix == ".parquet":
        write_atomically(path, lambda file: _parquet(file, labels, features))
        return [path]
    if path.suffix == ".csv":
        write_atomically(path, lambda file: _csv(file, labels, features))
        return [path]
    write_atomically(path, lambda file: np.save(file, features))
    beside = path.with_suffix(".csv")
    write_atomically(beside, lambda file: _csv(file, labels, features[:, :0]))
    return [path, beside]


def _parquet(file: IO[bytes], labels: Sequence[tuple[str, ...]], features: np.ndarray) -> None:
    arrow: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    columns = {name: [row[place] for row in labels] for place, name in enumerate(COLUMNS)}
    rows = arrow.FixedSizeListArray.from_arrays(arrow.array(features.reshape(-1)), features.shape[1])
    parquet.write_table(arrow.table({**columns, "feature": rows}), file)


def _csv(file: IO[bytes], labels: Sequence[tuple[str, ...]], features: np.ndarray) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    writer = csv.writer(text)
    writer.writerow([*COLUMNS, *(f"f{number}" for number in range(features.shape[1]))])
    for row, feature in zip(labels, features):
        writer.writerow([*row, *map(repr, feature.tolist())])
    text.detach()
