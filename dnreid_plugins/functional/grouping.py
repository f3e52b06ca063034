"""Means over the clusters that occur in a batch."""

from __future__ import annotations

import torch
from torch import Tensor


def cluster_means(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean feature of each cluster present in a batch; gradient flows to ``features``.

    Args:
        features: ``(B, D)`` floating point.
        targets: ``(B,)`` int64; -1 belongs to no cluster.

    Returns:
        ``(U,)`` int64 clusters present, ascending, and their ``(U, D)`` means, not normalised. U may be 0.
    """
    clusters = torch.unique(targets[targets >= 0])
    # A product with the (U, B) membership sums in a fixed order; scattered adds on a GPU do not.
    member = (clusters[:, None] == targets[None, :]).to(features.dtype)
    return clusters, member @ features / member.sum(dim=1, keepdim=True)
