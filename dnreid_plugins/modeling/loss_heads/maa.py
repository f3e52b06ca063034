"""Multi-factor adaptive alignment of the two domains' batch features (CIA Eq. 10-14)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ...functional.adaptive_alignment import maa_loss
from ...functional.types import Assignment, Domain
from ..batch import BatchFeatures
from ..memory import PrototypeMemory
from .base import LOSS_HEAD_REGISTRY, LossHead

FEATURES = ("neck", "pooled")


def aligned_features(
    batch: BatchFeatures, feature: str
) -> tuple[Tensor, Tensor, BatchFeatures, BatchFeatures]:
    """Day and night features to align, and the two parts of the batch."""
    day, night = batch.of(Domain.DAY), batch.of(Domain.NIGHT)
    if feature == "neck":
        return day.unit, night.unit, day, night
    return day.pooled.float(), night.pooled.float(), day, night


def both_maps(matching: Assignment | None, like: Tensor) -> tuple[Tensor, Tensor] | tuple[()]:
    """``day_to_night`` and ``night_to_day`` on the device of ``like``; nothing while there is no matching."""
    return () if matching is None else (matching.day_to_night.to(like), matching.night_to_day.to(like))


def check_feature(name: str, feature: str) -> str:
    if feature not in FEATURES:
        raise ValueError(f"MODEL.LOSSES.{name}.FEATURE is {feature!r}; it is one of {FEATURES}.")
    return feature


def check_num_kernels(name: str, num_kernels: int) -> int:
    if num_kernels < 1:
        raise ValueError(f"MODEL.LOSSES.{name}.NUM_KERNELS is {num_kernels}; it is at least 1.")
    return num_kernels


@LOSS_HEAD_REGISTRY.register()
class MAA(LossHead):
    """Weighted multi-kernel MMD; "same cluster across domains" means matched by another head (U22), in either map.

    Args:
        weight: see `LossHead`; paper: 0.5 in epochs 1-50, 0.3 from 51 on.
        alpha_0, s_0: of Eq. 12-13, paper silent (U12, U13).
        intra_day, intra_night, class_factor: of Eq. 11 and 13, from the paper.
        feature: ``"neck"``, the unit feature that is compared with prototypes, or ``"pooled"`` (U18).
        num_kernels: Gaussians in the kernel (U15).
    """

    def __init__(
        self,
        *,
        weight: Sequence[Sequence[float]] = ((1, 0.5), (51, 0.3)),
        alpha_0: float = 1.0,
        s_0: float = 0.1,
        intra_day: float = 0.30,
        intra_night: float = 0.35,
        class_factor: float = 1.1,
        feature: str = "neck",
        num_kernels: int = 5,
    ) -> None:
        super().__init__(weight=weight)
        self.feature = check_feature("MAA", feature)
        self.factors: dict[str, Any] = {
            "alpha_0": alpha_0,
            "s_0": s_0,
            "intra_day": intra_day,
            "intra_night": intra_night,
            "class_factor": class_factor,
            "num_kernels": check_num_kernels("MAA", num_kernels),
        }

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        x, y, day, night = aligned_features(batch, self.feature)
        result = maa_loss(
            x, y, day.targets, night.targets, *both_maps(self.matching, day.targets), **self.factors
        )
        self.statistics = {"cross_to_intra": result.cross_to_intra}
        return result.loss
