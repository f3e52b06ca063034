"""Maximum mean discrepancy between the two domains of a batch: plain, weighted per pair, with a margin."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import mapped_targets, zero_with_graph
from dnreid_plugins.functional.precision import in_full_precision


class PairBlocks(NamedTuple):
    """One number per pair of samples, a kernel value or a weight, in three blocks.

    ``(B_day, B_day)``, ``(B_night, B_night)`` and ``(B_day, B_night)``; the fourth block of CIA Eq. 14,
    night-day, is the transpose of the last one.
    """

    day_day: Tensor
    night_night: Tensor
    day_night: Tensor


@in_full_precision
def gaussian_kernels(
    features_day: Tensor, features_night: Tensor, *, num_kernels: int = 5, multiplier: float = 2.0
) -> PairBlocks:
    """Sum of Gaussians ``exp(-||a - b||^2 / s_m)`` whose widths follow the batch (U15, as in MMD-ReID).

    ``s_m = mean * multiplier ** (m - num_kernels // 2) + 1e-9`` for ``m = 0 .. num_kernels - 1``, where
    ``mean`` is the mean squared distance between different rows of the joint batch, a constant for the
    gradient. ``num_kernels=1`` is the single kernel at the mean.

    The rows are centred first, as a constant, which changes no distance: once all features are near one
    point, ``|a|^2 + |b|^2 - 2ab`` of the rows as they are would subtract equal numbers and leave float32
    rounding only, while the widths shrink along with the distances and so magnify it.

    Args:
        features_day: ``(B_day, D)``; gradient flows.
        features_night: ``(B_night, D)``.
        num_kernels: number of Gaussians; a kernel value of equal rows is this number.
        multiplier: ratio of neighbouring widths.
    """
    joint = torch.cat([features_day, features_night])
    joint = joint - joint.detach().mean(dim=0)
    size, num_day = joint.shape[0], features_day.shape[0]
    squares = (joint * joint).sum(dim=1)
    distance = (squares[:, None] + squares[None, :] - 2.0 * joint @ joint.T).clamp(min=0.0)
    # A row is exactly at distance 0 from itself; the expansion above is so only up to rounding.
    distance = distance.masked_fill(torch.eye(size, dtype=torch.bool, device=joint.device), 0.0)
    mean = distance.detach().sum() / max(size * (size - 1), 1)
    widths = [mean * multiplier ** (m - num_kernels // 2) + 1e-9 for m in range(num_kernels)]
    kernel = torch.stack([torch.exp(-distance / width) for width in widths]).sum(dim=0)
    return PairBlocks(kernel[:num_day, :num_day], kernel[num_day:, num_day:], kernel[:num_day, num_day:])


@in_full_precision
def mmd2(
    features_day: Tensor, features_night: Tensor, *, weights: PairBlocks | None = None, num_kernels: int = 5
) -> Tensor:
    """Squared MMD, biased: the four sums of CIA Eq. 14 as means over their pairs (U16, U17).

    The pair of a sample with itself counts (U21): its kernel value is a constant without gradient.
    Without weights this is MMD-ReID's loss (for equal batch sizes the same formula). With weights it is
    CIA's L_MAA and may be negative.

    Args:
        features_day: ``(B_day, D)``; unit post-BN rows by default (U18), MMD-ReID takes pooled features.
        features_night: ``(B_night, D)``.
        weights: constants per pair, from `multi_factor_weights`.
        num_kernels: see `gaussian_kernels`.

    Returns:
        Scalar, float32 or float64. Zero with a graph when a side is empty.
    """
    if features_day.shape[0] == 0 or features_night.shape[0] == 0:
        return zero_with_graph(features_day) + zero_with_graph(features_night)
    blocks = gaussian_kernels(features_day, features_night, num_kernels=num_kernels)
    if weights is not None:
        blocks = PairBlocks(*(kernel * w for kernel, w in zip(blocks, weights, strict=True)))
    # The night-day sum of Eq. 14 equals the day-night one: kernel and weights are symmetric.
    return blocks.day_day.mean() + blocks.night_night.mean() - 2.0 * blocks.day_night.mean()


@in_full_precision
def margin_mmd(
    features_day: Tensor,
    features_night: Tensor,
    targets_day: Tensor | None = None,
    targets_night: Tensor | None = None,
    day_to_night: Tensor | None = None,
    night_to_day: Tensor | None = None,
    *,
    margin: float = 1.4,
    num_kernels: int = 5,
) -> Tensor:
    """MMD-ReID's Margin-MMD: mean over groups of the group's MMD^2, which counts **fully** or not at all.

    As released, a term above the margin counts with its whole value, a term below not at all; it is no
    hinge. A group there is an identity, K images of each domain in a fixed batch order. Without identities
    a group is a matched pair of clusters that both have samples in the batch; each group has its own
    kernel widths. A pair is matched if either map names it, so under a many-to-one matching a cluster is
    in several groups. Without a map (before any matching exists) the whole batch is one group.

    The margin seldom does what its name says. The biased estimate has a floor that depends on the number
    of samples alone, since the kernel widths follow the data: about 1.55 for 4 + 4 samples of one and the
    same distribution, so there every term counts; about 0.2 for 32 + 32, where two domains that differ
    clearly stay below 1.4, so as one group the term trains nothing unless the margin is smaller.

    Args:
        features_day: ``(B_day, D)``.
        features_night: ``(B_night, D)``.
        targets_day: ``(B_day,)`` int64 clusters, -1 = outlier. Needed with a map.
        targets_night: ``(B_night,)`` int64.
        day_to_night: ``(C_day,)`` int64, night partner of each day cluster, -1 = none; None = no groups.
        night_to_day: ``(C_night,)`` int64, day partner of each night cluster; None = the inverse of the above.
        margin: smallest MMD^2 that counts; two far apart groups have 5 to 10 (the kernel is a sum of 5).
        num_kernels: see `gaussian_kernels`.

    Returns:
        Scalar; zero with a graph when no group exceeds the margin or there is none.

    Raises:
        ValueError: if a map comes without targets.
    """
    nothing = zero_with_graph(features_day) + zero_with_graph(features_night)
    if day_to_night is None:
        groups = [(features_day, features_night)]
    elif targets_day is None or targets_night is None:
        raise ValueError("margin_mmd got a day_to_night map without targets; pass both domains' targets.")
    else:
        pairs = _pairs_in_batch(targets_day, targets_night, day_to_night, night_to_day)
        groups = [(features_day[targets_day == d], features_night[targets_night == n]) for n, d in pairs]
    if not groups:
        return nothing
    terms = torch.stack([mmd2(day, night, num_kernels=num_kernels) for day, night in groups])
    return nothing + torch.where(terms > margin, terms, 0.0).mean()


def _pairs_in_batch(
    targets_day: Tensor, targets_night: Tensor, day_to_night: Tensor, night_to_day: Tensor | None
) -> Tensor:
    """``(P, 2)`` distinct (night, day) clusters that a map names and that both have samples, by night cluster."""
    day, night = (torch.unique(targets[targets >= 0]) for targets in (targets_day, targets_night))
    pairs = torch.stack([mapped_targets(day, day_to_night), day], dim=1)
    if night_to_day is not None:
        back = torch.stack([night, mapped_targets(night, night_to_day)], dim=1)
        pairs = torch.cat([pairs, back])
    present = torch.isin(pairs[:, 0], night) & torch.isin(pairs[:, 1], day)
    return torch.unique(pairs[present], dim=0)
