"""Bridging's partition of cross-domain neighbours into positives and hard negatives (Eq. 10-12)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class NeighbourPartition(NamedTuple):
    """Boolean ``(C_day, C_night)`` masks; rows are day clusters in all three.

    Attributes:
        positives: each cluster is among the k nearest of the other; ``P`` of both sides at once.
        hard_day: night clusters among the k nearest of the day cluster that are not positives, ``H_i``.
        hard_night: day clusters among the k nearest of the night cluster that are not positives, ``H'_j``.
    """

    positives: Tensor
    hard_day: Tensor
    hard_night: Tensor


@torch.no_grad()
def mutual_topk_partition(similarity: Tensor, k: int) -> NeighbourPartition:
    """Split the ``k`` nearest clusters of the other domain into mutual and one-sided neighbours.

    Args:
        similarity: ``(C_day, C_night)``; either side may be empty.
        k: neighbours per cluster (released code: 15); all of them if there are fewer. Among equal
            similarities the lower cluster number comes first.

    Raises:
        ValueError: if ``k`` is below 1.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}; the released code uses 15.")
    near_day = _is_among_largest(similarity, k)
    near_night = _is_among_largest(similarity.T, k).T
    positives = near_day & near_night
    return NeighbourPartition(positives, near_day & ~positives, near_night & ~positives)


def _is_among_largest(values: Tensor, k: int) -> Tensor:
    """Boolean mask of the k largest entries of each row, lower index first among equals."""
    order = torch.argsort(values, dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(values, dtype=torch.bool).scatter_(1, order, True)
