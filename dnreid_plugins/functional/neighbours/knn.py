"""Exact k nearest neighbours of every row among all rows or among other rows, in memory that grows with N x k."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._jit import map_rows
from ._filter import FLOAT_UNIT, Filter, rounded_filter
from ._knn_kernels import complete, feed_columns, feed_rows, finish, rerank
from ._product import multiplier

Progress = Callable[[int, int], None]

BLOCK = 1024
"""Default rows per product: near the best rate of a matrix product, with little wasted on the diagonal."""

SPARE, ROOM = 38, 22
"""Candidates kept beyond k, and places for new ones. Where rounding leaves more, the row is searched once more."""

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

    Products of rounded rows, int8 where the processor has instructions for it, only leave out what provably is no
    neighbour (`_filter`); the distances of all others are summed in float64 and rounded to float32. So the table does
    not depend on ``block``, threads, library or device, whatever the rows.

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
    k = min(k, num)
    if num == 0:
        return Neighbours(np.empty((0, 0), np.int32), np.empty((0, 0), np.float32))
    if matrix.is_cuda:
        return _search_cuda(matrix, matrix, k, min(k + SPARE, num), block=block, progress=progress)
    _check_loops()
    return _search(matrix.cpu(), k, block, progress)


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
    k = min(k, count)
    if num == 0 or count == 0:
        return Neighbours(np.empty((num, k), np.int32), np.empty((num, k), np.float32))
    if asking.is_cuda:
        return _search_cuda(asking, others, k, min(k + SPARE, count), block=block, progress=progress)
    _check_loops()
    # one matrix, queries first, so that the loops of `knn_table` serve here, too
    both = torch.cat([asking, others])
    candidates = _Candidates(rounded_filter(both), num, k)
    candidates.search_across(block, progress)
    found = candidates.table(both, range(num, len(both)), block)
    return Neighbours(found.indices - np.int32(num), found.distances)


def _search(matrix: Tensor, k: int, block: int, progress: Progress | None = None) -> Neighbours:
    found = _Candidates(rounded_filter(matrix), len(matrix), k)
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


def squared_norms(matrix: Tensor) -> Tensor:
    """``(N,)`` squared lengths, without a second matrix."""
    return torch.cat([part.square().sum(dim=1) for part in matrix.split(4096)])


class _Candidates:
    """What may be among the ``k`` nearest of the first ``num`` rows of ``rounded``, as the loops keep it."""

    def __init__(self, rounded: Filter, num: int, k: int) -> None:
        self.rounded, self.num, self.k = rounded, num, k
        self.keys = np.empty((num, k + SPARE + ROOM), dtype=np.int64)
        self.used = np.zeros(num, dtype=np.int64)
        limits, lost = np.full((2, num), np.inf, dtype=np.float32)
        self.kept = (k, k + SPARE, self.keys, self.used, limits, lost)
        self.state = (rounded.bounds, rounded.rooms(), *self.kept)

    def search_all(self, block: int, progress: Progress | None) -> None:
        """Offer every row to every other one; the product of two different blocks serves both."""
        blocks = range(0, self.num, block)
        done, total = 0, len(blocks) * (len(blocks) + 1) // 2
        for col0 in blocks:
            multiply = self.rounded.start(slice(col0, min(col0 + block, self.num)))
            for row0 in range(0, col0 + 1, block):
                product = multiply(slice(row0, min(row0 + block, self.num)))
                work = partial(feed_rows, product, row0, col0, *self.state)
                map_rows(work, product.shape[0], chunk=_CHUNK)
                if row0 != col0:
                    work = partial(feed_columns, product, row0, col0, *self.state)
                    map_rows(work, product.shape[1], chunk=_CHUNK)
                done += 1
                if progress is not None:
                    progress(done, total)

    def search_across(self, block: int, progress: Progress | None) -> None:
        """Offer the rows after ``num`` to those before."""
        end = self.rounded.bounds.shape[1]
        columns = range(self.num, end, block)
        for done, col0 in enumerate(columns, start=1):
            multiply = self.rounded.start(slice(col0, min(col0 + block, end)))
            for row0 in range(0, self.num, block):
                product = multiply(slice(row0, min(row0 + block, self.num)))
                work = partial(feed_rows, product, row0, col0, *self.state)
                map_rows(work, product.shape[0], chunk=_CHUNK)
            if progress is not None:
                progress(done, len(columns))

    def table(self, matrix: Tensor, columns: range, block: int) -> Neighbours:
        """The table by true distances; rows without a proof are searched once more among rows ``columns``."""
        proven = np.empty(self.num, dtype=bool)
        rounded = self.rounded
        map_rows(partial(finish, rounded.bounds, rounded.tiny, *self.kept, proven), self.num, chunk=4096)
        tables = np.empty((self.num, self.k), np.int32), np.empty((self.num, self.k), np.float32)
        # consecutive rows with the same neighbours find them in the processor's cache
        order = np.argsort(self.keys[:, 0] & 0x7FFFFFFF, kind="stable")
        map_rows(partial(rerank, matrix.numpy(), self.keys, self.used, order, *tables), self.num, chunk=512)
        self._complete(np.flatnonzero(~proven), matrix, columns, tables, block)
        return Neighbours(*tables)

    def _complete(
        self,
        rows: NDArray[np.int64],
        matrix: Tensor,
        columns: range,
        tables: tuple[NDArray[np.int32], NDArray[np.float32]],
        block: int,
    ) -> None:
        """Make some rows of ``tables`` exact; ``k`` different neighbours of each, any of them, are there."""
        if len(rows) == 0:
            return
        rounded = self.rounded
        for col0 in range(columns.start, columns.stop, block):
            multiply = rounded.start(slice(col0, min(col0 + block, columns.stop)))
            for some in np.split(rows, range(block, len(rows), block)):
                product = multiply(torch.from_numpy(some))
                state = (product, matrix.numpy(), some, col0, rounded.bounds, rounded.unit, *tables)
                map_rows(partial(complete, *state), len(some), chunk=64)


def _search_cuda(
    queries: Tensor, matrix: Tensor, k: int, width: int, *, block: int, progress: Progress | None
) -> Neighbours:
    """The search on a GPU: float32 products and sums stay there, only the table is copied back.

    The rows left out are beyond the last candidate by the product, which is off by at most
    ``2 (D u / (1 - D u) + 4 u) (|x|^2 + |y|^2)``, u = 2^-24; where that does not prove a row, all are summed.
    """
    num, dim = matrix.shape
    norms, own = squared_norms(matrix), squared_norms(queries)
    share = dim * FLOAT_UNIT
    slack = 2.5 * (share / (1 - share) + 8 * FLOAT_UNIT) * (own.double() + norms.max()) + dim * 2.0**-120
    multiply = multiplier(matrix)
    number = torch.arange(num, device=matrix.device)
    indices, distances = [], []
    starts = range(0, len(queries), block)
    for done, start in enumerate(starts, start=1):
        part = queries[start : start + block]
        near = own[start : start + block, None] + norms - 2 * multiply(part)
        # one integer key per pair, distance first: equal distances go to the lower index
        keys = (near.clamp_min_(0).view(torch.int32).to(torch.int64) << 32) + number
        best = keys.topk(width, dim=1, largest=False).values
        last = (best.amax(dim=1) >> 32).to(torch.int32).view(torch.float32).double()
        del near, keys
        order, true = _nearest_by_sums(part, matrix, best.bitwise_and(2**32 - 1), k)
        proven = (last - slack[start : start + block] > true[:, -1]) | (width == num)
        for row in (~proven).nonzero().flatten().tolist():
            order[row], true[row] = _nearest_of_all(part[row], matrix, k)
        indices.append(order.to(torch.int32).cpu().numpy())
        distances.append(true.cpu().numpy())
        if progress is not None:
            progress(done, len(starts))
    return Neighbours(np.concatenate(indices), np.concatenate(distances))


def _nearest_by_sums(part: Tensor, matrix: Tensor, candidates: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The best ``k`` candidates of each row by true distance and index, and these distances."""
    candidates = candidates.sort(dim=1).values
    # a quarter of a gigabyte of differences
    rows_at_once = max(1, 2**28 // (8 * candidates.shape[1] * max(matrix.shape[1], 1)))
    indices, distances = [], []
    for some, theirs in zip(part.split(rows_at_once), candidates.split(rows_at_once), strict=True):
        true = (some[:, None] - matrix[theirs]).double().square().sum(dim=2).float()
        true, order = true.sort(dim=1, stable=True)
        indices.append(theirs.gather(1, order)[:, :k])
        distances.append(true[:, :k])
    return torch.cat(indices), torch.cat(distances)


def _nearest_of_all(row: Tensor, matrix: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`_nearest_by_sums` of one row among all rows."""
    parts = matrix.split(max(1, 2**28 // (8 * max(matrix.shape[1], 1))))
    true = torch.cat([(row - part).double().square().sum(dim=1).float() for part in parts])
    true, order = true.sort(stable=True)
    return order[:k], true[:k]
