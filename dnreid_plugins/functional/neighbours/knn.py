"""Exact k nearest neighbours of every row among all rows or among other rows, in memory that grows with N x k."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._candidates import Candidates, Neighbours, Peers, Progress, shares, whole_table
from ._cuda_search import search_cuda
from ._filter import near_together, rounded_filter
from ._knn_kernels import finish

__all__ = ["BLOCK", "Neighbours", "Peers", "Progress", "as_matrix", "knn_across", "knn_table"]

BLOCK = 1024
"""Default rows per product: near the best rate of a matrix product, with little wasted on the diagonal."""


def as_matrix(features: NDArray[np.floating] | Tensor, name: str = "features") -> Tensor:
    """``(N, D)`` float32 contiguous tensor on the device of ``features``; refuses NaN and infinity."""
    matrix = torch.as_tensor(features).detach()
    if matrix.ndim != 2:
        raise ValueError(
            f"{name} must be a (N, D) matrix, got shape {tuple(matrix.shape)}; flatten each row."
        )
    matrix = matrix.to(torch.float32).contiguous()
    broken = int((~torch.isfinite(torch.linalg.vector_norm(matrix, dim=1))).sum())
    if broken:
        raise ValueError(
            f"{name} has {broken} rows with NaN, infinity or a squared norm beyond float32; fix the model."
        )
    return matrix


def knn_table(
    features: NDArray[np.floating] | Tensor,
    k: int,
    *,
    block: int = BLOCK,
    progress: Progress | None = None,
    peers: Peers | None = None,
) -> Neighbours:
    """Exact k nearest neighbours by squared Euclidean distance, the lower index first among equals.

    Products of rounded rows, int8 where the processor has instructions for it, only leave out what provably is no
    neighbour (`_filter`); the distances of all others are summed in float64 and rounded to float32. So the table does
    not depend on ``block``, threads, library or device, whatever the rows.

    Args:
        features: ``(N, D)``, any float type, NumPy or torch; searched on the GPU if it lies there.
        k: neighbours per row, itself included; more than N is clamped to N.
        block: rows per product; memory grows by a block squared.
        progress: called as ``progress(done, total)`` after each product.
        peers: processes that share the work; each has the whole table at the end, the same as that of one process.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}; a row is its own first neighbour.")
    matrix = as_matrix(features)
    num = matrix.shape[0]
    k = min(k, num)
    if num == 0:
        return Neighbours(np.empty((0, 0), np.int32), np.empty((0, 0), np.float32))
    if matrix.is_cuda:
        return _shared_rows(matrix, matrix, k, block, progress, peers)
    _check_loops()
    return _search(matrix.cpu(), k, block, progress, peers)


def knn_across(
    queries: NDArray[np.floating] | Tensor,
    reference: NDArray[np.floating] | Tensor,
    k: int,
    *,
    block: int = BLOCK,
    progress: Progress | None = None,
    peers: Peers | None = None,
) -> Neighbours:
    """Exact k nearest rows of ``reference`` for each row of ``queries``: as `knn_table`, for two sets of rows.

    Args:
        queries: ``(Q, D)``; as ``features`` of `knn_table`.
        reference: ``(R, D)`` on the same device; either side may be empty.
        k: neighbours per query; more than R is clamped to R.
        block, progress, peers: see `knn_table`.

    Returns:
        ``(Q, min(k, R))`` tables; the indices are rows of ``reference``.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}; ask for one neighbour or more.")
    asking, others = as_matrix(queries, "queries"), as_matrix(reference, "reference")
    if asking.shape[1] != others.shape[1]:
        raise ValueError(
            f"queries have {asking.shape[1]} columns and reference {others.shape[1]}; give features of one encoder."
        )
    num, count = len(asking), len(others)
    k = min(k, count)
    if num == 0 or count == 0:
        return Neighbours(np.empty((num, k), np.int32), np.empty((num, k), np.float32))
    return _shared_rows(asking, others, k, block, progress, peers)


def _shared_rows(
    queries: Tensor, reference: Tensor, k: int, block: int, progress: Progress | None, peers: Peers | None
) -> Neighbours:
    """The table of ``queries``, of which each process searches its share of the rows."""
    if peers is not None:
        own = shares(len(queries), peers)[peers.rank]
        mine = _across(queries[own.start : own.stop], reference, k, block, progress)
        return whole_table(mine, peers)
    return _across(queries, reference, k, block, progress)


def _across(queries: Tensor, reference: Tensor, k: int, block: int, progress: Progress | None) -> Neighbours:
    num = len(queries)
    if num == 0:
        return Neighbours(np.empty((0, k), np.int32), np.empty((0, k), np.float32))
    if queries.is_cuda:
        return search_cuda(queries, reference, k, block=block, progress=progress)
    _check_loops()
    # one matrix, queries first, so that the loops of `knn_table` serve here, too
    both = torch.cat([queries, reference])
    candidates = Candidates(rounded_filter(both), num, k)
    candidates.search_across(block, progress)
    found = candidates.table(both, range(num, len(both)), block)
    return Neighbours(found.indices - np.int32(num), found.distances)


def _search(
    matrix: Tensor, k: int, block: int, progress: Progress | None = None, peers: Peers | None = None
) -> Neighbours:
    order = near_together(matrix)
    if peers is not None:  # another processor may round otherwise: that of the first process holds
        order = peers.exchange([order] * peers.count)[0]
    found = Candidates(rounded_filter(matrix, order), len(matrix), k, peers)
    found.search_all(block, progress)
    return found.table(matrix, range(len(matrix)), block)


@functools.cache
def _check_loops() -> None:
    """A search with a known answer, once per process: compiled loops come from files on a disk."""
    rows = torch.arange(120.0)[:, None] * torch.tensor([1.0, 0.5, -2.0])
    rows[40:] = rows[20]
    true = (rows[:, None].double() - rows[None].double()).square().sum(dim=2)
    order = true.argsort(dim=1, stable=True)[:, :3].to(torch.int32)
    if not np.array_equal(_search(rows, 3, block=32).indices, order.numpy()):
        folder = finish.stats.cache_path  # type: ignore[attr-defined]
        raise RuntimeError(f"The compiled loops of the neighbour search give wrong results; delete {folder}.")
