"""Mutual neighbours among the clusters of the two domains (Bridging Day and Night, Eq. 10-12)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...functional.matching.mutual_topk import NeighbourPartition, mutual_topk_partition
from ...functional.types import Assignment, Epoch
from ...runtime.sections import Count
from .base import MATCHER_REGISTRY, Matcher


@MATCHER_REGISTRY.register()
class MutualNeighbours(Matcher):
    """Many to many: clusters that are among each other's nearest neighbours.

    Args:
        top_k: Neighbours per cluster; the released code has 15, keep it well below the number of clusters: with as
            many neighbours as clusters there are no hard negatives, with 1 no cluster has both a positive and a hard
            negative, so that a loss that contrasts them is 0.

    Attributes:
        partition: of the running epoch: mutual pairs, and one-sided pairs of either side.
    """

    def __init__(self, *, top_k: Count = 15) -> None:
        super().__init__()
        self.top_k = top_k
        self.partition: NeighbourPartition | None = None

    def match(self, epoch: Epoch, *, first: int = 1) -> tuple[Assignment, dict[str, float]]:
        similarity = epoch.day.centroids @ epoch.night.centroids.T
        self.partition = mutual_topk_partition(similarity, self.top_k)
        anchors = max(sum(similarity.shape), 1)
        hard = int(self.partition.hard_day.sum() + self.partition.hard_night.sum())
        return nearest_positive(similarity, self.partition.positives), {
            "positives": 2 * float(self.partition.positives.sum()) / anchors,
            "hard_negatives": hard / anchors,
        }


def nearest_positive(similarity: Tensor, positives: Tensor) -> Assignment:
    """Each cluster's nearest mutual neighbour, for the matching precision on the health line.

    Args:
        similarity: ``(C_day, C_night)``.
        positives: boolean mask of that shape.
    """
    if similarity.numel() == 0:
        return Assignment.empty(*similarity.shape)
    masked = similarity.masked_fill(~positives, float("-inf"))
    parts = []
    for table in (masked, masked.T):
        best, partner = table.max(dim=1)
        found = torch.isfinite(best)
        parts.append((torch.where(found, partner, -1).cpu(), torch.where(found, best, 0.0).float().cpu()))
    (night, day_score), (day, night_score) = parts
    return Assignment(night, day, day_score, night_score)
