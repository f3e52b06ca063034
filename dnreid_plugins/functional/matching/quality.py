"""Accuracy of a cross-domain matching, where true identities are available. Never used for training."""

from __future__ import annotations

import torch
from torch import Tensor

from dnreid_plugins.functional.types import Assignment


def majority_identity(labels: Tensor, ids: Tensor, num_clusters: int) -> Tensor:
    """``(C,)`` int64: the most frequent identity of each cluster.

    Args:
        labels: ``(N,)`` int64 pseudo labels, -1 = outlier, ignored.
        ids: ``(N,)`` int64 true identities, >= 0.
        num_clusters: C.

    Returns:
        The smallest identity among equals; -1 for a cluster without an image.
    """
    result = torch.full((num_clusters,), -1)
    clustered = (labels >= 0).cpu()
    members = torch.stack([labels.cpu()[clustered], ids.cpu()[clustered]], dim=1)
    pairs, counts = torch.unique(members, dim=0, return_counts=True)
    # unique sorts by (cluster, identity); a stable sort by count then puts each cluster's winner first.
    order = torch.argsort(counts, descending=True, stable=True)
    # Written from last to first, so that the winner stays.
    for cluster, identity in pairs[order].flip(0).tolist():
        result[cluster] = identity
    return result


def matching_precision(assignment: Assignment, majority_day: Tensor, majority_night: Tensor) -> float:
    """Share of the matched cluster pairs whose clusters have the same majority identity.

    Args:
        assignment: every distinct pair that either map names counts once.
        majority_day: ``(C_day,)`` int64 from `majority_identity`; -1 never counts as correct.
        majority_night: ``(C_night,)`` int64.

    Returns:
        Between 0 and 1; nan when nothing is matched.
    """
    pairs = assignment.pairs()
    if pairs.shape[0] == 0:
        return float("nan")
    day, night = majority_day.cpu()[pairs[:, 0]], majority_night.cpu()[pairs[:, 1]]
    return float(((day == night) & (day >= 0)).double().mean())
