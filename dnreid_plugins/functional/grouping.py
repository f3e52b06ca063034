"""Means over clusters: those that occur in a batch, and those that span both domains."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.precision import in_full_precision


@in_full_precision
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


def domain_balanced_means(features: Tensor, labels: Tensor, domains: Tensor) -> Tensor:
    """Centroids of clusters of both domains in which either domain counts half, however many images it has.

    A cluster of one domain alone has the mean of that domain.

    Args:
        features: ``(N, D)`` floating point.
        labels: ``(N,)`` int64, clusters ``0 .. C-1``; -1 = none.
        domains: ``(N,)`` int64, 0 or 1.

    Returns:
        ``(C, D)`` float32 unit rows.
    """
    clusters = int(labels.max()) + 1 if len(labels) else 0
    known = labels >= 0
    place = 2 * labels[known] + domains[known]
    sums = torch.zeros(2 * clusters, features.shape[1], device=features.device)
    sums.index_add_(0, place, features[known].float())
    means = sums / torch.bincount(place, minlength=2 * clusters).clamp(min=1)[:, None]
    return F.normalize(means.view(clusters, 2, features.shape[1]).sum(dim=1), dim=1)
