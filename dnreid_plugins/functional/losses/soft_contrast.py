"""Contrast with cluster prototypes under soft targets and weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..neighbours.soft_targets import SoftTargets
from ..precision import in_full_precision
from .contrast import zero_with_graph


@in_full_precision
def soft_nce(
    features: Tensor, targets: SoftTargets, prototypes: Tensor, *, temperature: float = 0.05
) -> Tensor:
    """`cluster_nce` with a distribution over clusters as the target: weight times cross-entropy, as a mean.

    The mean goes over the images that have a label, not over the weights; one-hot targets of weight 1 give
    `cluster_nce`.

    Args:
        features: ``(B, D)`` unit rows; carry the gradient.
        targets: of the ``B`` images; used as constants.
        prototypes: ``(C, D)`` unit rows. Rows past the last cluster are negatives only.
        temperature: divides the cosine similarity; > 0.

    Returns:
        Scalar, float32 or float64. With no labelled image or no prototype it is zero and keeps its graph.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; the family uses 0.05.")
    if prototypes.shape[0] == 0:
        return zero_with_graph(features)
    log_p = F.log_softmax(features @ prototypes.to(features.dtype).T / temperature, dim=1)
    shares, weight = targets.shares.detach().to(log_p), targets.weight.detach().to(log_p)
    per_image = -(shares * log_p.gather(1, targets.clusters.clamp(min=0))).sum(dim=1)
    return (weight * per_image).sum() / (targets.clusters[:, 0] >= 0).sum().clamp(min=1)
