"""CIA's Multi-Factor Adaptive Alignment (Eq. 10-14): how much each pair of a batch weighs in the MMD."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import mapped_targets
from dnreid_plugins.functional.losses.mmd import PairBlocks, mmd2
from dnreid_plugins.functional.precision import in_full_precision

MaaReading = Literal["printed", "silent", "attract", "root"]
ROOT_FLOOR = 1e-6
"""Below it "root" has no gradient; at 0 it would be infinite."""


class AdaptiveAlignment(NamedTuple):
    """L_MAA and the number to monitor.

    Attributes:
        loss: scalar with gradient.
        cross_to_intra: detached scalar a/b, mean cross-domain weight over mean same-domain weight. Above 1
            the global minimum of the loss is collapse of all features into one point, below 1 same-domain
            pairs are pushed apart; with the defaults expect 1.05 to 1.2.
    """

    loss: Tensor
    cross_to_intra: Tensor


@torch.no_grad()
@in_full_precision
def multi_factor_weights(
    features_day: Tensor,
    features_night: Tensor,
    targets_day: Tensor,
    targets_night: Tensor,
    day_to_night: Tensor | None = None,
    night_to_day: Tensor | None = None,
    *,
    alpha_0: float = 1.0,
    s_0: float = 0.1,
    intra_day: float = 0.30,
    intra_night: float = 0.35,
    class_factor: float = 1.1,
    reading: MaaReading = "printed",
) -> PairBlocks:
    """Pair weights ``base * sim * class`` (Eq. 10); every factor is 1 unless a rule below says otherwise.

    - Same domain, same cluster: base = ``1 + w (1 - S)`` (Eq. 11), w = ``intra_day`` or ``intra_night``.
      Different clusters of one domain keep 1 (U20).
    - Across, ``S > 0``: base = ``alpha_0``.
    - Across, ``S`` also above ``s_0`` + the batch mean of the cross-domain S (Eq. 12, U14): sim =
      ``1 + alpha_0 (1 - (1 - S)^2)`` (Eq. 13). The rules are stacked: a pair with ``S <= 0`` is never
      boosted, even when the mean is so low that it passes this threshold, where Eq. 13 would turn negative.
    - Across, above the threshold, and the two clusters are matched in either map (for a many-to-one matching neither
      map alone is complete): class = ``class_factor``. Raw cluster numbers of
      two domains are never compared (U22).

    Args:
        features_day: ``(B_day, D)``, any length; S is the cosine (Eq. 4). A constant (U19).
        features_night: ``(B_night, D)``.
        targets_day: ``(B_day,)`` int64 clusters, -1 = outlier, which belongs to no cluster.
        targets_night: ``(B_night,)`` int64.
        day_to_night: ``(C_day,)`` int64, night partner of each day cluster, -1 = none; None before any
            matching exists, then class = 1 everywhere.
        night_to_day: ``(C_night,)`` int64, day partner of each night cluster, -1 = none; None = the inverse
            of ``day_to_night``.
        alpha_0: the paper gives no value; 1.0 (U12).
        s_0: the paper gives no value; 0.1 (U13).
        intra_day: w for day (paper: 0.30).
        intra_night: w for night (paper: 0.35).
        class_factor: paper: 1.1.
        reading: "printed": the equations as they stand; their text allows the others, too. "silent": pairs
            across that are not above the threshold weigh 0. "attract": pairs of one cluster and domain have the
            negative weight, so Eq. 14 pulls hard positives together, not apart. "root" as "printed".
    """
    unit_day, unit_night = F.normalize(features_day, dim=1), F.normalize(features_night, dim=1)
    cross = unit_day @ unit_night.T
    one = torch.ones_like(cross)
    positive = cross > 0
    confident = positive & (cross > s_0 + cross.mean())
    weight = torch.where(positive, alpha_0, one)
    weight = weight * torch.where(confident, 1.0 + alpha_0 * (1.0 - (1.0 - cross) ** 2), one)
    if day_to_night is not None:
        matched = _same_cluster(mapped_targets(targets_day, day_to_night), targets_night)
        if night_to_day is not None:
            matched = matched | _same_cluster(mapped_targets(targets_night, night_to_day), targets_day).T
        weight = weight * torch.where(confident & matched, class_factor, one)
    if reading == "silent":
        weight = torch.where(confident, weight, 0.0)
    sign = -1.0 if reading == "attract" else 1.0
    return PairBlocks(
        _intra_weights(unit_day, targets_day, intra_day, sign),
        _intra_weights(unit_night, targets_night, intra_night, sign),
        weight,
    )


@in_full_precision
def maa_loss(
    features_day: Tensor,
    features_night: Tensor,
    targets_day: Tensor,
    targets_night: Tensor,
    day_to_night: Tensor | None = None,
    night_to_day: Tensor | None = None,
    *,
    alpha_0: float = 1.0,
    s_0: float = 0.1,
    intra_day: float = 0.30,
    intra_night: float = 0.35,
    class_factor: float = 1.1,
    num_kernels: int = 5,
    reading: MaaReading = "printed",
) -> AdaptiveAlignment:
    """L_MAA (Eq. 14): `mmd2` under `multi_factor_weights`; arguments as there, features carry the gradient.

    With an empty side the loss is zero with a graph and ``cross_to_intra`` is 1.

    Args:
        reading: as there; "root": the root of the weighted sum, as the left side of Eq. 14 is a square; 0.001 where
            the sum is below 1e-6.
    """
    weights = multi_factor_weights(
        features_day,
        features_night,
        targets_day,
        targets_night,
        day_to_night,
        night_to_day,
        alpha_0=alpha_0,
        s_0=s_0,
        intra_day=intra_day,
        intra_night=intra_night,
        class_factor=class_factor,
        reading=reading,
    )
    loss = mmd2(features_day, features_night, weights=weights, num_kernels=num_kernels)
    if weights.day_night.numel() == 0:
        return AdaptiveAlignment(loss, torch.ones_like(loss))
    if reading == "root":
        loss = loss.clamp(min=ROOT_FLOOR).sqrt()
    intra = (weights.day_day.mean() + weights.night_night.mean()) / 2.0
    return AdaptiveAlignment(loss, weights.day_night.mean() / intra)


def _same_cluster(targets_a: Tensor, targets_b: Tensor) -> Tensor:
    """``(A, B)`` bool: both have a cluster and it is the same."""
    return (targets_a[:, None] == targets_b[None, :]) & (targets_a >= 0)[:, None]


def _intra_weights(unit: Tensor, targets: Tensor, scale: float, sign: float) -> Tensor:
    similarity = unit @ unit.T
    return torch.where(_same_cluster(targets, targets), sign * (1.0 + scale * (1.0 - similarity)), 1.0)
