"""The k-NN search on a GPU."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ._candidates import SPARE, Neighbours, Progress
from ._filter import FLOAT_UNIT
from ._product import multiplier, squared_norms


def search_cuda(
    queries: Tensor, matrix: Tensor, k: int, *, block: int, progress: Progress | None
) -> Neighbours:
    """The search on a GPU: float32 products and sums stay there, only the table is copied back.

    The rows left out are beyond the last candidate by the product, which is off by at most
    ``2 (D u / (1 - D u) + 4 u) (|x|^2 + |y|^2)``, u = 2^-24; where that does not prove a row, all are summed.
    """
    num, dim = matrix.shape
    width = min(k + SPARE, num)
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
