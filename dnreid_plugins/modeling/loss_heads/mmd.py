"""Plain and margin MMD between the two domains' batch features (MMD-ReID), the baselines of MAA."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ...functional.losses.mmd import margin_mmd, mmd2
from ...functional.types import Domain
from ...runtime.sections import Count, NotNegative
from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule

Feature = Literal["neck", "pooled"]


def aligned_features(
    batch: BatchFeatures, feature: Feature
) -> tuple[Tensor, Tensor, BatchFeatures, BatchFeatures]:
    """Day and night features to align, and the two parts of the batch."""
    day, night = batch.of(Domain.DAY), batch.of(Domain.NIGHT)
    if feature == "neck":
        return day.unit, night.unit, day, night
    return day.pooled.float(), night.pooled.float(), day, night


def both_maps(parts: Parts, like: Tensor) -> tuple[Tensor, Tensor] | tuple[()]:
    """``day_to_night`` and ``night_to_day`` on the device of ``like``; empty while there is no matching."""
    matching = None if parts.epoch is None else parts.epoch.matching
    return () if matching is None else (matching.day_to_night.to(like), matching.night_to_day.to(like))


@LOSS_HEAD_REGISTRY.register()
class MMD(LossHead):
    """Squared multi-kernel MMD of the whole batch.

    Args:
        weight: As for MAA.
        feature: "neck" or "pooled", as for MAA.
        num_kernels: Gaussians in the kernel's sum.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 0.5), (51, 0.3)),
        feature: Feature = "neck",
        num_kernels: Count = 5,
    ) -> None:
        super().__init__(weight=weight)
        self.feature = feature
        self.num_kernels = num_kernels

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        x, y, _, _ = aligned_features(batch, self.feature)
        return mmd2(x, y, num_kernels=self.num_kernels)


@LOSS_HEAD_REGISTRY.register()
class MarginMMD(LossHead):
    """MMD that counts only above a margin, per matched pair of clusters once another head has matched.

    Args:
        weight: As for MAA.
        feature: "neck" or "pooled", as for MAA.
        num_kernels: Gaussians in the kernel's sum.
        margin: Per matched pair of clusters, as released per identity.
        batch_margin: While nothing is matched and the whole batch is one group; MMD-ReID has no such case.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 0.5), (51, 0.3)),
        feature: Feature = "neck",
        num_kernels: Count = 5,
        margin: NotNegative = 1.4,
        batch_margin: NotNegative = 0.0,
    ) -> None:
        super().__init__(weight=weight)
        self.margin = margin
        self.batch_margin = batch_margin
        self.feature = feature
        self.num_kernels = num_kernels

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        x, y, day, night = aligned_features(batch, self.feature)
        maps = both_maps(parts, day.targets)
        if not maps:
            return margin_mmd(x, y, margin=self.batch_margin, num_kernels=self.num_kernels)
        return margin_mmd(
            x, y, day.targets, night.targets, *maps, margin=self.margin, num_kernels=self.num_kernels
        )
