"""Exact k nearest neighbours of every row among all rows or among other rows, in memory that grows with N x k."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._jit import map_rows
from ._knn_kernels import feed_columns, feed_rows, nearest, rerank
from ._product import multiplier

Progress = Callable[[int, int], None]

BLOCK = 1024
"""Default rows per product: near the best rate of a matrix product, with little wasted on the diagonal."""

SPARE = 8
"""Candidates kept beyond k: a product rounds distances by about 1e-6, so the last ranks may be swapped."""

_CHUNK = 256
"""Rows or columns of a product block that one thread scans at a time."""


class Neighbours(NamedTuple):
    """The k-NN table. Each row counts itself as a neighbour.

    Attributes:
        indices: ``(N, k)`` int32, nearest first, equal distances in index order.
        distances: ``(N, k)`` float32, squared Euclidean; ``None`` where only the order is known.
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32] | None = None


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
) -> Neighbours:
    """Exact k nearest neighbours by squared Euclidean distance, the lower index first among equals.

    A float32 matrix product proposes ``k + 8`` candidates per row, and their distances are then summed again in
    float64. So the table does not depend on ``block``, threads, library or device, unless more than eight rows tie
    with the last rank within the rounding of a product (then they are all equally near).

    Args:
        features: ``(N, D)``, any float type, NumPy or torch; searched on the GPU if it lies there.
        k: neighbours per row, itself included; more than N is clamped to N.
        block: rows per product; memory grows by a block squared.
        progress: called as ``progress(done, total)`` after each product.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}; a row is its own first neighbour.")
    matrix = as_matrix(features)
    num = matrix.shape[0]
    k, width = min(k, num), min(k + SPARE, num)
    if num == 0:
        return Neighbours(np.empty((0, 0), np.int32), np.empty((0, 0), np.float32))
    if matrix.is_cuda:
        return _search_cuda(matrix, matrix, k, width, block=block, progress=progress)
    matrix = matrix.cpu()
    return _ranked(matrix, _candidates(matrix, width, block=block, progress=progress), k)


def knn_across(
    queries: NDArray[np.floating] | Tensor,
    reference: NDArray[np.floating] | Tensor,
    k: int,
    *,
    block: int = BLOCK,
    progress: Progress | None = None,
) -> Neighbours:
    """Exact k nearest rows of ``reference`` for each row of ``queries``: as `knn_table`, for two sets of rows.

    Args:
        queries: ``(Q, D)``; as ``features`` of `knn_table`.
        reference: ``(R, D)`` on the same device; either side may be empty.
        k: neighbours per query; more than R is clamped to R.
        block, progress: see `knn_table`.

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
    k, width = min(k, count), min(k + SPARE, count)
    if num == 0 or count == 0:
        return Neighbours(np.empty((num, k), np.int32), np.empty((num, k), np.float32))
    if asking.is_cuda:
        return _search_cuda(asking, others, k, width, block=block, progress=progress)
    # one matrix, queries first, so that the loops of `knn_table` serve here, too
    both = torch.cat([asking, others])
    found = _ranked(both, _candidates_across(both, num, width, block=block, progress=progress), k)
    return Neighbours(found.indices - np.int32(num), found.distances)


def _ranked(matrix: Tensor, candidates: NDArray[np.int32], k: int) -> Neighbours:
    """The best ``k`` of the candidates of the first rows of ``matrix``, by true distances."""
    num = len(candidates)
    indices, distances = np.empty((num, k), np.int32), np.empty((num, k), np.float32)
    # consecutive rows with the same neighbours find them in the processor's cache
    order = np.argsort(candidates.min(axis=1), kind="stable")
    rows = matrix.numpy()
    map_rows(partial(rerank, rows, candidates, order, indices, distances), num, chunk=512)
    return Neighbours(indices, distances)


def squared_norms(matrix: Tensor) -> Tensor:
    """``(N,)`` squared lengths, without a second matrix."""
    return torch.cat([part.square().sum(dim=1) for part in matrix.split(4096)])


def _candidates(matrix: Tensor, width: int, *, block: int, progress: Progress | None) -> NDArray[np.int32]:
    """``(N, width)`` indices of the nearest rows by the float32 product, unordered.

    The product of two different blocks serves both: half of the multiplications of a plain search.
    """
    num = matrix.shape[0]
    norms = squared_norms(matrix).numpy()
    limits, used = np.full(num, np.inf, dtype=np.float32), np.zeros(num, dtype=np.int64)
    keys = np.empty((num, 2 * width), dtype=np.int64)
    state = (norms, limits, keys, used)
    blocks = range(0, num, block)
    done, total = 0, len(blocks) * (len(blocks) + 1) // 2
    for col0 in blocks:
        multiply = multiplier(matrix[col0 : col0 + block])
        for row0 in range(0, col0 + 1, block):
            product = multiply(matrix[row0 : row0 + block]).numpy()
            map_rows(partial(feed_rows, product, row0, col0, *state), product.shape[0], chunk=_CHUNK)
            if row0 != col0:
                map_rows(partial(feed_columns, product, row0, col0, *state), product.shape[1], chunk=_CHUNK)
            done += 1
            if progress is not None:
                progress(done, total)
    candidates = np.empty((num, width), dtype=np.int32)
    map_rows(partial(nearest, keys, used, candidates), num, chunk=4096)
    return candidates


def _candidates_across(
    both: Tensor, num: int, width: int, *, block: int, progress: Progress | None
) -> NDArray[np.int32]:
    """`_candidates` of the first ``num`` rows among the rows after them."""
    norms = squared_norms(both).numpy()
    limits, used = np.full(num, np.inf, dtype=np.float32), np.zeros(num, dtype=np.int64)
    keys = np.empty((num, 2 * width), dtype=np.int64)
    columns = range(num, len(both), block)
    for done, col0 in enumerate(columns, start=1):
        multiply = multiplier(both[col0 : col0 + block])
        for row0 in range(0, num, block):
            product = multiply(both[row0 : min(row0 + block, num)]).numpy()
            work = partial(feed_rows, product, row0, col0, norms, limits, keys, used)
            map_rows(work, product.shape[0], chunk=_CHUNK)
        if progress is not None:
            progress(done, len(columns))
    candidates = np.empty((num, width), dtype=np.int32)
    map_rows(partial(nearest, keys, used, candidates), num, chunk=4096)
    return candidates


def _search_cuda(
    queries: Tensor, matrix: Tensor, k: int, width: int, *, block: int, progress: Progress | None
) -> Neighbours:
    """The same search on a GPU: products and sums stay there, only the table is copied back."""
    num, dim = matrix.shape
    norms, own = squared_norms(matrix), squared_norms(queries)
    multiply = multiplier(matrix)
    rows_at_once = max(1, 2**28 // (8 * width * max(dim, 1)))  # a quarter of a gigabyte of differences
    number = torch.arange(num, device=matrix.device)
    indices, distances = [], []
    starts = range(0, len(queries), block)
    for done, start in enumerate(starts, start=1):
        part = queries[start : start + block]
        near = own[start : start + block, None] + norms - 2 * multiply(part)
        # one integer key per pair, distance first: equal distances go to the lower index
        keys = (near.clamp_min_(0).view(torch.int32).to(torch.int64) << 32) + number
        candidates = keys.topk(width, dim=1, largest=False).values.bitwise_and(2**32 - 1).sort(dim=1).values
        del near, keys
        for some, theirs in zip(part.split(rows_at_once), candidates.split(rows_at_once), strict=True):
            true = (some[:, None] - matrix[theirs]).double().square().sum(dim=2).float()
            true, order = true.sort(dim=1, stable=True)
            indices.append(theirs.gather(1, order)[:, :k].to(torch.int32).cpu().numpy())
            distances.append(true[:, :k].cpu().numpy())
        if progress is not None:
            progress(done, len(starts))
    return Neighbours(np.concatenate(indices), np.concatenate(distances))
