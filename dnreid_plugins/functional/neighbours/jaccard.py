"""k-reciprocal Jaccard distances (Zhong et al., CVPR 2017) as a sparse graph: memory grows with N x k."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .._jit import map_rows
from . import _jaccard_kernels as kernels
from .knn import Neighbours, as_matrix, knn_table

_ROWS = 1024
"""Rows per task: a few hundred kilobytes of output each, and enough tasks for every core."""

_SUMS = np.float64
"""The type to sum weights in; what is kept is rounded once, to float32."""


def jaccard_graph(
    features: NDArray[np.floating] | Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    radius: float = 0.6,
    domains: NDArray[np.integer] | Tensor | None = None,
    knn: Neighbours | NDArray[np.integer] | None = None,
) -> sparse.csr_array:
    """Jaccard distances of all pairs ``i <= j`` that are at most ``radius`` apart.

    Args:
        features: ``(N, D)``, used as given (no normalisation), NumPy or torch.
        k1: neighbours per row, itself included; more than N is clamped to N.
        k2: rows averaged by the local query expansion, itself included; 1 = none; at most k1 are there.
        radius: in [0, 1); a pair without a common neighbour is exactly 1 apart and never kept.
        domains: ``(N,)`` integers. The query expansion then averages the neighbours of each domain apart and
            takes the mean of these averages, over the domains that are among the k2 (the field's joint
            clustering); otherwise the larger domain would outvote the smaller one.
        knn: a k-NN table to use instead of searching, at least ``min(k1, N)`` wide.

    Returns:
        ``(N, N)`` float32 upper triangle, columns ascending; a stored 0 is a distance. The diagonal is 0, except for
        rows with more than k1 copies that push the row out of its own neighbours: those are up to 1 away from
        themselves.
    """
    if not 0 <= radius < 1:
        raise ValueError(
            f"radius must be in [0, 1), got {radius}; pairs without a common neighbour are 1 apart."
        )
    if k1 < 1 or k2 < 1:
        raise ValueError(f"k1 and k2 must be at least 1, got {k1} and {k2}; 1 means the row itself.")
    matrix = as_matrix(features)
    num = matrix.shape[0]
    if num == 0:
        return sparse.csr_array((0, 0), dtype=np.float32)
    k1 = min(k1, num)
    found = knn_table(matrix, k1) if knn is None else _checked_table(knn, num, k1)
    table = np.ascontiguousarray(found.indices[:, :k1], dtype=np.int32)
    indptr, columns = reciprocal_sets(table)
    rows = _Rows(indptr, columns, _softmax_weights(matrix, table, found.distances, indptr, columns))
    if k2 > 1:
        rows = _query_expansion(rows, table[:, :k2], domains)
    return _near_pairs(rows, radius)


class _Rows(NamedTuple):
    """Sparse rows. Not a scipy matrix, which may change the index types that the loops are compiled for."""

    indptr: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: NDArray[np.float32]


def reciprocal_sets(table: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Expanded k-reciprocal sets of an ``(N, k1)`` k-NN table, as ``(indptr, members)``, members ascending.

    A neighbour is reciprocal if each has the other among its first k1. The set grows by the reciprocal set
    of half the width of each member that lies in it by more than two thirds.
    """
    num, k1 = table.shape
    # the public code cuts the half lists at round(k1 / 2) + 1, and rounds half to even
    width = min(int(np.around(k1 / 2)) + 1, k1)
    full, full_counts = _over_rows(num, partial(kernels.reciprocal_sets, table, k1))
    half, half_counts = _over_rows(num, partial(kernels.reciprocal_sets, table, width))
    expand = partial(kernels.expanded_sets, full, full_counts, half, half_counts)
    members, counts = _over_rows(num, expand)
    return _ends(counts), members


def _softmax_weights(
    matrix: Tensor,
    table: NDArray[np.int32],
    distances: NDArray[np.float32] | None,
    indptr: NDArray[np.int64],
    members: NDArray[np.int32],
) -> NDArray[np.float32]:
    rows = matrix.cpu().numpy()
    known = np.empty((0, 0), np.float32) if distances is None else np.ascontiguousarray(distances)
    state = (rows, table, known, indptr, members)
    (values,) = _over_rows(len(rows), lambda a, b: (kernels.softmax_weights(*state, a, b),))
    return values


def _query_expansion(
    rows: _Rows, nearest: NDArray[np.int32], domains: NDArray[np.integer] | Tensor | None
) -> _Rows:
    """Each row becomes a mean of the rows of its nearest neighbours (plain, not reciprocal)."""
    num, k2 = nearest.shape
    nearest = np.ascontiguousarray(nearest)
    shares, divisor = np.ones((num, k2)), k2
    if domains is not None:
        shares, divisor = _balanced_shares(nearest, domains), 1
    state = (nearest, shares, divisor, *rows, np.empty(num, _SUMS))
    columns, values, counts = _over_rows(num, partial(kernels.average_rows, *state))
    return _Rows(_ends(counts), columns, values)


def _balanced_shares(
    nearest: NDArray[np.int32], domains: NDArray[np.integer] | Tensor
) -> NDArray[np.float64]:
    """``(N, k2)`` weights that sum to 1: equal for each domain present, equal within a domain."""
    codes = np.asarray(domains.cpu() if isinstance(domains, Tensor) else domains)
    if codes.shape != (len(nearest),):
        raise ValueError(f"domains must be ({len(nearest)},), got {codes.shape}; give one domain per row.")
    theirs = codes[nearest]
    same = (theirs[:, :, None] == theirs[:, None, :]).sum(axis=2)
    shares = 1.0 / same
    balanced: NDArray[np.float64] = shares / shares.sum(axis=1, keepdims=True)
    return balanced


def _near_pairs(rows: _Rows, radius: float) -> sparse.csr_array:
    num = len(rows.indptr) - 1
    by_column = sparse.csr_array((rows.values, rows.columns, rows.indptr), shape=(num, num)).tocsc()
    # scipy chooses index types by size, the loops are compiled for these
    indptr, indices = by_column.indptr.astype(np.int64), by_column.indices.astype(np.int32)
    state = (*rows, indptr, indices, by_column.data, float(np.float32(radius)), np.empty(num, _SUMS))
    columns, distances, counts = _over_rows(num, partial(kernels.near_pairs, *state))
    return sparse.csr_array((distances, columns, _ends(counts)), shape=(num, num))


def _checked_table(knn: Neighbours | NDArray[np.integer], num: int, k1: int) -> Neighbours:
    found = knn if isinstance(knn, Neighbours) else Neighbours(np.asarray(knn))
    indices = found.indices
    if indices.ndim != 2 or indices.shape[0] != num or indices.shape[1] < k1:
        raise ValueError(f"knn must be ({num}, {k1}) or wider, got {indices.shape}; search with k >= k1.")
    if indices.min() < 0 or indices.max() >= num:
        raise ValueError(f"knn names rows {indices.min()} to {indices.max()} of {num}; search with k <= N.")
    return found


def _over_rows(num: int, work: Callable[[int, int], tuple[Any, ...]]) -> tuple[NDArray[Any], ...]:
    """The arrays that ``work`` returns for consecutive row ranges, joined."""
    parts = map_rows(work, num, chunk=_ROWS)
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _ends(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
