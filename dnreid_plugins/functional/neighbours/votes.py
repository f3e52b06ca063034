"""Labels by vote: an image takes the label that its neighbours have most. Outliers (-1) vote, too.

Lists of neighbours are ``(N, K)``, as `knn.knn_table` and `knn.knn_across` find them: memory grows with N x K. A tie
goes to the lower label, and to "outlier" first, as in an argmax over one-hot votes with outliers as class 0.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor


def label_totals(labels: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What each label among the neighbours of an image comes to.

    Args:
        labels: ``(N, K)`` int64 labels of the neighbours; -1 = outlier.
        weights: ``(N, K)`` weight of each neighbour; None: each counts 1.

    Returns:
        ``(N, K)`` int64, the different labels of a row in ascending order, then -2 up to the end; and ``(N, K)``
        float64, the sum of the weights of each, 0 at the end.
    """
    ordered, order = labels.sort(dim=1, stable=True)
    weight = torch.ones_like(labels, dtype=torch.float64) if weights is None else weights.double()
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    place = first.cumsum(dim=1) - 1
    found = torch.full_like(labels, -2).scatter_(1, place, ordered)
    totals = torch.zeros_like(weight).scatter_add_(1, place, weight.gather(1, order))
    return found, totals


def transfer_by_vote(
    neighbours: Tensor,
    similarity: Tensor,
    labels: Tensor,
    *,
    weights: Literal["softmax", "count"] = "softmax",
) -> Tensor:
    """Labels for images of one domain from the labels of their neighbours in the other one.

    Args:
        neighbours: ``(N, K)`` int64 rows of the other domain.
        similarity: ``(N, K)`` their cosines; without effect under "count".
        labels: ``(R,)`` int64 labels of the other domain; -1 = outlier.
        weights: "softmax": the softmax of the cosines at temperature 1. The sum over all R images, by which a softmax
            divides, is left out: it is the same for all votes of an image. "count": each neighbour counts 1.

    Returns:
        ``(N,)`` int64 labels, -1 where the outliers have most votes; all -1 for K = 0.
    """
    if neighbours.shape[1] == 0:
        return torch.full((len(neighbours),), -1, dtype=torch.int64, device=labels.device)
    found, totals = label_totals(
        labels[neighbours], similarity.double().exp() if weights == "softmax" else None
    )
    return found.gather(1, totals.argmax(dim=1, keepdim=True))[:, 0]


def majority_smooth(neighbours: Tensor, labels: Tensor) -> Tensor:
    """``(N,)`` int64, each image's most frequent label among its neighbours.

    Args:
        neighbours: ``(N, K)`` int64 rows of the same images, the image itself included.
        labels: ``(N,)`` int64; -1 = outlier.
    """
    return transfer_by_vote(neighbours, torch.empty(0), labels, weights="count")
