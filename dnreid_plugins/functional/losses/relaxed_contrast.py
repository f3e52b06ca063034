"""Relaxed contrastive loss: near pairs of a batch are drawn together and far ones pushed apart, without labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import zero_with_graph
from dnreid_plugins.functional.precision import in_full_precision


@in_full_precision
def relaxed_contrast(x: Tensor, *, normalise: bool = True) -> Tensor:
    """Mean over all pairs i != j of ``w s^2 + (1 - w) relu(1 - s)^2`` (RPNR's neighbour relation loss).

    ``s_ij = |x_i - x_j| / mean_j |x_i - x_j|``, where the mean counts the row itself, and
    ``w_ij = exp(-|x_i - x_j|^2)`` is a constant. On features as long as those behind a batch norm every w is 0, and
    the loss only pushes, images of one cluster included; unit rows have w from 0.018 to 1.

    Args:
        x: ``(B, D)``; carries the gradient.
        normalise: bring the rows to unit length first; the released code does not.

    Returns:
        Scalar, float32 or float64; zero with a graph for fewer than two rows. Equal rows count as at distance 0 and
        get no gradient from their pair; a row to which all are equal has s = 0.
    """
    if len(x) < 2:
        return zero_with_graph(x)
    rows = F.normalize(x, dim=1) if normalise else x
    # Centring changes no distance and keeps the digits of rows that lie close together.
    rows = rows - rows.detach().mean(dim=0)
    squares = rows.square().sum(dim=1)
    squared = squares[:, None] + squares[None, :] - 2.0 * rows @ rows.T
    apart = (squared > 0) & ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    # A square root has no finite slope at 0, so such pairs stay outside of it.
    distance = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    mean = distance.mean(dim=1, keepdim=True)
    relative = distance / torch.where(mean > 0, mean, 1.0)
    weight = torch.exp(-torch.where(apart, squared, 0.0).detach())
    pairs = weight * relative.square() + (1.0 - weight) * torch.relu(1.0 - relative).square()
    # The weight of a row with itself is 1 and its distance 0, so the diagonal adds nothing.
    return pairs.sum() / (len(x) * (len(x) - 1))
