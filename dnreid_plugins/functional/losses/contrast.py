"""Contrastive losses between features and cluster prototypes of the same domain or of the matched other one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.precision import in_full_precision


def zero_with_graph(features: Tensor) -> Tensor:
    """Scalar 0 that is still connected to ``features``, so that ``backward`` gives zeros and not an error."""
    return features.float().sum() * 0.0 if features.dtype != torch.float64 else features.sum() * 0.0


def mapped_targets(targets: Tensor, partner: Tensor) -> Tensor:
    """``(B,)`` int64: the other domain's cluster that each sample's cluster is matched with; -1 = none.

    Args:
        targets: ``(B,)`` int64 in ``-1 .. C-1``, clusters of the own domain.
        partner: ``(C,)`` int64 map to clusters of the other domain, -1 = none; any device.
    """
    if partner.shape[0] == 0:
        return torch.full_like(targets, -1)
    return torch.where(targets >= 0, partner.to(targets.device)[targets.clamp(min=0)], -1)


@in_full_precision
def cluster_nce(
    features: Tensor, targets: Tensor, prototypes: Tensor, *, temperature: float = 0.05
) -> Tensor:
    """ClusterNCE (CIA Eq. 2; Bridging Eq. 6): cross-entropy of a feature against all cluster prototypes.

    The papers write a sum over samples; like the released code of the family this is a mean, over the
    samples that have a target (U5).

    Args:
        features: ``(B, D)`` unit rows; carry the gradient.
        targets: ``(B,)`` int64 in ``-1 .. C-1``; -1 = no pseudo label, ignored.
        prototypes: ``(C, D)`` unit rows. Rows past the last target are negatives only.
        temperature: divides the cosine similarity; > 0.

    Returns:
        Scalar, float32 or float64. With no valid target or no prototype it is zero and keeps its graph.

    Raises:
        ValueError: if ``temperature`` is not positive.
    """
    _check_temperature(temperature)
    if prototypes.shape[0] == 0:
        return zero_with_graph(features)
    logits = features @ prototypes.to(features.dtype).T / temperature
    total = F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")
    return total / (targets >= 0).sum().clamp(min=1)


@in_full_precision
def mutual_mapping_loss(
    features: Tensor,
    targets: Tensor,
    partner: Tensor,
    weight: Tensor,
    other_prototypes: Tensor,
    *,
    temperature: float = 0.05,
) -> Tensor:
    """One direction of CIA's cross-domain mutual mapping loss (Eq. 8): features against the other domain.

    Sample ``i`` of cluster ``c = targets[i]`` contributes ``weight[c] * CE(features[i], partner[c])``; the
    mean goes over the contributing samples, not over the weights (U5). Outliers and clusters without a
    partner contribute nothing (U9, U10). With unit weights this is PGM's alternate cross contrast.

    Args:
        features: ``(B, D)`` unit rows of one domain; carry the gradient.
        targets: ``(B,)`` int64 in ``-1 .. C-1``, clusters of the features' own domain.
        partner: ``(C,)`` int64, cluster of the other domain that each own cluster is matched with; -1 = none.
        weight: ``(C,)`` weight of each pair, ``M`` of Eq. 5; used as a constant (U11).
        other_prototypes: ``(C_other, D)`` unit rows of the other domain.
        temperature: divides the cosine similarity; > 0.

    Returns:
        Scalar, float32 or float64; zero with a graph when no sample has a partner or a side is empty.

    Raises:
        ValueError: if ``temperature`` is not positive, or ``partner`` and ``weight`` differ in length.
    """
    _check_temperature(temperature)
    if partner.shape != weight.shape:
        raise ValueError(
            f"partner and weight must have one entry per cluster, got {tuple(partner.shape)} and "
            f"{tuple(weight.shape)}; take both from the same Assignment."
        )
    if partner.shape[0] == 0 or other_prototypes.shape[0] == 0:
        return zero_with_graph(features)
    matched = mapped_targets(targets, partner)
    pair_weight = weight.detach().to(features)[targets.clamp(min=0)]
    logits = features @ other_prototypes.to(features.dtype).T / temperature
    per_sample = F.cross_entropy(logits, matched, ignore_index=-1, reduction="none")
    return (pair_weight * per_sample).sum() / (matched >= 0).sum().clamp(min=1)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; the family uses 0.05.")
