"""k-reciprocal Jaccard distances (Zhong et al., CVPR 2017) as a sparse graph: memory grows with N x k."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from . import _jaccard_kernels as kernels
from ._jit import map_rows
from .knn import Neighbours, Progress, as_matrix, knn_table

_ROWS = 1024
"""Rows per task: a few hundred kilobytes of output each, and enough tasks for every core."""


def jaccard_graph(
    features: NDArray[np.floating] | Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    radius: float = 0.6,
    knn: Neighbours | NDArray[np.integer] | None = None,
    progress: Progress | None = None,
) -> sparse.csr_array:
    """Jaccard distances of all pairs ``i < j`` that are at most ``radius`` apart.

    Args:
        features: ``(N, D)``, used as given (no normalisation), NumPy or torch.
        k1: neighbours per row, itself included; more than N is clamped to N.
        k2: rows averaged by the local query expansion, itself included; 1 = none.
        radius: in [0, 1); a pair without a common neighbour is exactly 1 apart and never kept.
        knn: a k-NN table to use instead of searching, at least ``min(k1, N)`` wide.
        progress: see :func:`knn_table`.

    Returns:
        ``(N, N)`` float32 upper triangle without the diagonal; a stored 0 is a distance of 0.
    """
    if not 0 <= radius < 1:
        raise ValueError(
            f"radius must be in [0, 1), got {radius}; pairs without a common neighbour are 1 apart."
        )
    if k1 < 1 or k2 < 1:
        raise ValueError(f"k1 and k2 must be at least 1, got {k1} and {k2}; 1 means the row itself.")
    matrix = as_matrix(features)
    num = matrix.shape[0]
    k1 = min(k1, num)
    if num == 0:
        return sparse.csr_array((0, 0), dtype=np.float32)
    found = _checked_table(knn, num, k1) if knn is not None else knn_table(matrix, k1, progress=progress)
    weights = reciprocal_weights(matrix, found, k1=k1)
    if k2 > 1:
        weights = _query_expansion(weights, found.indices[:, : min(k2, k1)])
    return _near_pairs(weights, radius)


def reciprocal_weights(features: Tensor, knn: Neighbours, *, k1: int) -> sparse.csr_array:
    """``(N, N)`` float32: softmax of minus squared distances over each row's expanded reciprocal set."""
    table = np.ascontiguousarray(knn.indices[:, :k1], dtype=np.int32)
    num = table.shape[0]
    # the half set is cut at round(k1 / 2) + 1 and rounding is half to even, as in the public code
    narrow = min(int(np.around(k1 / 2)) + 1, k1)
    full, full_counts = _stack(
        map_rows(lambda a, b: kernels.reciprocal_sets(table, k1, a, b), num, chunk=_ROWS)
    )
    half, half_counts = _stack(
        map_rows(lambda a, b: kernels.reciprocal_sets(table, narrow, a, b), num, chunk=_ROWS)
    )
    columns, counts = _stack(
        map_rows(
            lambda a, b: kernels.expanded_sets(full, full_counts, half, half_counts, a, b), num, chunk=_ROWS
        )
    )
    indptr = _row_ends(counts)
    rows = features.cpu().numpy()
    known = (
        np.empty((0, 0), np.float32) if knn.distances is None else np.ascontiguousarray(knn.distances[:, :k1])
    )
    (values,) = _stack(
        map_rows(
            lambda a, b: (kernels.softmax_weights(rows, table, known, indptr, columns, a, b),),
            num,
            chunk=_ROWS,
        )
    )
    return sparse.csr_array((values, columns, indptr), shape=(num, num))


def _query_expansion(weights: sparse.csr_array, nearest: NDArray[np.int32]) -> sparse.csr_array:
    """Each row becomes the mean of the rows of its nearest neighbours (plain, not reciprocal)."""
    num = weights.shape[0]
    nearest = np.ascontiguousarray(nearest)
    zeros = np.zeros(num)
    columns, values, counts = _stack(
        map_rows(
            lambda a, b: kernels.average_rows(
                nearest, weights.indptr, weights.indices, weights.data, zeros, a, b
            ),
            num,
            chunk=_ROWS,
        )
    )
    return sparse.csr_array((values, columns, _row_ends(counts)), shape=(num, num))


def _near_pairs(weights: sparse.csr_array, radius: float) -> sparse.csr_array:
    num = weights.shape[0]
    by_column = kernels.transpose(weights.indptr, weights.indices, weights.data)
    zeros = np.zeros(num)
    columns, values, counts = _stack(
        map_rows(
            lambda a, b: kernels.near_pairs(
                weights.indptr, weights.indices, weights.data, *by_column, np.float32(radius), zeros, a, b
            ),
            num,
            chunk=_ROWS,
        )
    )
    return sparse.csr_array((values, columns, _row_ends(counts)), shape=(num, num))


def _checked_table(knn: Neighbours | NDArray[np.integer], num: int, k1: int) -> Neighbours:
    found = knn if isinstance(knn, Neighbours) else Neighbours(np.asarray(knn))
    indices = found.indices
    if indices.ndim != 2 or indices.shape[0] != num or indices.shape[1] < k1:
        raise ValueError(f"knn must be ({num}, {k1}) or wider, got {indices.shape}; search with k >= k1.")
    if indices.min() < 0 or indices.max() >= num:
        raise ValueError(f"knn names row {indices.min()} or {indices.max()} of {num}; search with k <= N.")
    return found


def _stack(parts: list[tuple[NDArray[Any], ...]]) -> tuple[NDArray[Any], ...]:
    """Outputs of consecutive row ranges, joined."""
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))


def _row_ends(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
