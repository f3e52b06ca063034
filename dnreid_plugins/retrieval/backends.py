"""The fast search of a gallery by faiss: all rows, inverted lists or a graph."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..functional.ranking.nearest import Matrix, Rows
from ..runtime.files import write_atomically

faiss: Any = importlib.import_module("faiss")  # its type stubs know only a part of it

Kind = Literal["flat", "ivf", "hnsw"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Mask = NDArray[np.bool_]
#: Rows that are compared at once where all are; more are only read, not copied.
BLOCK = 1 << 16
#: Inverted lists: about ``LISTS * sqrt(N)`` of them, of which a query looks into one of ``SHARE``; images per list
#: that k-means learns from.
LISTS, SHARE, TRAINED_ON = 4, 32, 64
#: Graph: neighbours of a node, and how wide it is searched when it is built and when it is asked.
NEIGHBOURS, WIDTH_BUILT, WIDTH_ASKED = 32, 80, 128


def all_rows(features: Matrix, queries: Matrix, count: int, allowed: Mask | None) -> tuple[Matrix, Rows]:
    """The ``count`` rows with the highest products among the ``allowed`` ones (None = all), read block by block."""
    scores, rows = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(features), BLOCK):
        part, places = features[start : start + BLOCK], np.arange(start, min(start + BLOCK, len(features)))
        if allowed is not None and not allowed[places].all():
            places = places[allowed[places]]
            part = part[places - start]
        if not len(places):
            continue
        part = np.ascontiguousarray(part, dtype=np.float32)
        found = faiss.knn(queries, part, min(count, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
        scores = np.concatenate([scores, found[0]], axis=1)
        rows = np.concatenate([rows, places[found[1]]], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :count]
        scores = np.take_along_axis(scores, best, axis=1)
        rows = np.take_along_axis(rows, best, axis=1)
    return scores, rows


def lists_for(count: int) -> int:
    """Number of inverted lists for ``count`` rows."""
    return max(min(int(LISTS * count**0.5), count // TRAINED_ON), 1)


def build(kind: Kind, features: Matrix) -> Any:
    """A faiss index of all rows; deterministic for one number of threads."""
    dim = features.shape[1]
    if kind == "ivf":
        lists = lists_for(len(features))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(dim), dim, lists, faiss.METRIC_INNER_PRODUCT)
        chosen = np.linspace(0, len(features) - 1, min(lists * TRAINED_ON, len(features))).astype(np.int64)
        index.cp.min_points_per_centroid = 1  # silence: the choice above is meant
        index.train(np.ascontiguousarray(features[chosen]))
    else:
        index = faiss.IndexHNSWFlat(dim, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = WIDTH_BUILT
    extend(index, features)
    return index


def extend(index: Any, features: Matrix) -> None:
    """Add rows, block by block."""
    for start in range(0, len(features), BLOCK):
        index.add(np.ascontiguousarray(features[start : start + BLOCK]))


def grown(kind: Kind, index: Any, features: Matrix) -> Any:
    """``index`` with more rows; None where its lists are so few that so many rows want more than twice as many."""
    if kind == "ivf" and lists_for(index.ntotal + len(features)) > 2 * int(index.nlist):
        return None
    extend(index, features)
    return index


def ask(kind: Kind, index: Any, queries: Matrix, count: int, allowed: Mask | None) -> tuple[Matrix, Rows]:
    """Candidates of an approximate index; -1 where it finds fewer."""
    selector = None
    if allowed is not None and not allowed.all():
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))
    options = probes(index, selector) if kind == "ivf" else width(count, selector)
    scores, rows = index.search(np.ascontiguousarray(queries), count, params=options)
    return scores, rows.astype(np.int64)


def probes(index: Any, selector: Any) -> Any:
    """How many inverted lists a query looks into."""
    return faiss.SearchParametersIVF(nprobe=max(index.nlist // SHARE, min(8, index.nlist)), sel=selector)


def width(count: int, selector: Any) -> Any:
    """How wide a graph is searched for ``count`` rows."""
    return faiss.SearchParametersHNSW(efSearch=max(WIDTH_ASKED, count), sel=selector)


def write(index: Any, path: Path) -> None:
    """Write an index to ``path``, whole or not at all."""
    write_atomically(path, lambda file: faiss.write_index(index, faiss.PyCallbackIOWriter(file.write)))


def read(path: Path) -> Any:
    """The index in a file.

    Raises:
        ValueError: it is damaged.
    """
    try:
        return faiss.read_index(str(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())[-120:]
        raise ValueError(f"{path} is damaged ({reason}); build the gallery again.") from error
