"""Contrast with several prototypes of a cluster at once: its mean and its hardest one, or a set of recent features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import cluster_nce, zero_with_graph
from dnreid_plugins.functional.precision import in_full_precision


@in_full_precision
def hybrid_nce(
    features: Tensor,
    targets: Tensor,
    mean_rows: Tensor,
    hard_rows: Tensor,
    *,
    temperature: float = 0.05,
    floor: float = 0.2,
) -> Tensor:
    """``(CE_hard + max(CE_mean - floor, 0)) / 2``, both of them `cluster_nce` (released code of PCLHD and RPNR).

    The floor is taken off the mean over the batch, not off each image. A cross-entropy is never negative, so a floor
    at or below 0 cuts nothing and subtracts nothing.

    Args:
        features: ``(B, D)`` unit rows; carry the gradient.
        targets: ``(B,)`` int64 in ``-1 .. C-1``; -1 = no pseudo label, ignored.
        mean_rows: ``(C, D)`` unit rows that follow the mean of a cluster's images.
        hard_rows: ``(C, D)`` unit rows that follow its hardest images.
        temperature: divides the cosine similarity; > 0.
        floor: below it the contrast with the mean rows has no gradient.

    Returns:
        Scalar, float32 or float64; zero with a graph when no image has a target or there is no row.

    Raises:
        ValueError: if ``temperature`` is not positive, or the two sets of rows differ in shape.
    """
    if mean_rows.shape != hard_rows.shape:
        raise ValueError(
            f"mean_rows and hard_rows have the shapes {tuple(mean_rows.shape)} and {tuple(hard_rows.shape)}; take two "
            "banks of the same clusters."
        )
    mean = cluster_nce(features, targets, mean_rows, temperature=temperature)
    hard = cluster_nce(features, targets, hard_rows, temperature=temperature)
    return (hard + torch.relu(mean - max(floor, 0.0))) / 2


@in_full_precision
def dynamic_nce(features: Tensor, targets: Tensor, rows: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Cross-entropy against sets of rows: the own cluster counts by its least similar row, others by their nearest.

    PCLHD's contrast with dynamic prototypes. A row that is given twice in a set changes nothing.

    Args:
        features: ``(B, D)`` unit rows; carry the gradient.
        targets: ``(B,)`` int64 in ``-1 .. C-1``; -1 = no pseudo label, ignored.
        rows: ``(C, K, D)`` unit rows, K per cluster.
        temperature: divides the cosine similarity; > 0.

    Returns:
        Scalar, float32 or float64; zero with a graph when no image has a target or there is no row.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; the family uses 0.05.")
    known = targets >= 0
    features, targets = features[known], targets[known]
    if rows.shape[0] * rows.shape[1] * len(targets) == 0:
        return zero_with_graph(features)
    similarity = torch.einsum("bd,ckd->bck", features, rows.to(features.dtype))
    nearest, farthest = similarity.amax(dim=2), similarity.amin(dim=2)
    own = F.one_hot(targets, rows.shape[0]).bool()
    return F.cross_entropy(torch.where(own, farthest, nearest) / temperature, targets)
