"""Exact k nearest neighbours of every row among all rows, in memory that grows with N x k."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ._jit import map_rows
from ._knn_kernels import feed_columns, feed_rows, rerank

Progress = Callable[[int, int], None]

_SPARE = 8
"""Candidates kept beyond k: a product rounds distances by about 1e-6, so the last places may be swapped."""


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
    # a sum over finite rows is finite unless it overflows, and then the distances would overflow too
    if not bool(torch.isfinite(matrix.sum(dim=1)).all()):
        bad = int((~torch.isfinite(matrix).all(dim=1)).sum())
        raise ValueError(f"{name} has {bad} rows with NaN or infinity; look at the model that made them.")
    return matrix


def knn_table(
    features: NDArray[np.floating] | Tensor,
    k: int,
    *,
    block: int = 2048,
    progress: Progress | None = None,
) -> Neighbours:
    """Exact k nearest neighbours by squared Euclidean distance.

    Args:
        features: ``(N, D)``, any float type, NumPy or torch.
        k: neighbours per row, itself included; more than N is clamped to N.
        block: rows per product; changes speed and memory (two blocks of ``block**2`` floats), not the result.
        progress: called as ``progress(done, total)`` after each block of products.
    """
    matrix = as_matrix(features)
    num = matrix.shape[0]
    k = min(k, num)
    if k < 1:
        return Neighbours(np.empty((num, 0), np.int32), np.empty((num, 0), np.float32))
    candidates = _candidates(matrix.cpu(), min(k + _SPARE, num), block=block, progress=progress)
    rows = matrix.cpu().numpy()
    parts = map_rows(lambda start, stop: rerank(rows, candidates, k, start, stop), num, chunk=512)
    return Neighbours(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))


def _candidates(matrix: Tensor, width: int, *, block: int, progress: Progress | None) -> NDArray[np.int32]:
    """``(N, width)`` indices of the nearest rows as the product sees them, in no order.

    The product of two different blocks serves both: half of the multiplications of a plain search.
    """
    num = matrix.shape[0]
    norms = matrix.square().sum(dim=1).numpy()
    distances = np.full((num, width), np.inf, dtype=np.float32)
    indices = np.full((num, width), np.iinfo(np.int32).max, dtype=np.int32)
    blocks = range(0, num, block)
    done, total = 0, len(blocks) * (len(blocks) + 1) // 2
    for col0 in blocks:
        right = matrix[col0 : col0 + block].t()
        for row0 in range(0, col0 + 1, block):
            product = torch.mm(matrix[row0 : row0 + block], right).numpy()
            state = (product, row0, col0, norms, distances, indices)
            chunk = max(64, min(block, 512))
            map_rows(lambda a, b, s=state: feed_rows(*s, a, b), product.shape[0], chunk=chunk)  # type: ignore[misc]
            if row0 != col0:
                map_rows(lambda a, b, s=state: feed_columns(*s, a, b), product.shape[1], chunk=chunk)  # type: ignore[misc]
            done += 1
            if progress is not None:
                progress(done, total)
    return indices
