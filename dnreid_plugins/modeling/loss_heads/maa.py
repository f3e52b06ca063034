"""Multi-factor adaptive alignment of the two domains' batch features (CIA Eq. 10-14)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...functional.losses.adaptive_alignment import MaaReading, maa_loss
from ...runtime.sections import Count, Finite, NotNegative
from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule
from .mmd import Feature, aligned_features, both_maps


@LOSS_HEAD_REGISTRY.register()
class MAA(LossHead):
    """Weighted multi-kernel MMD; "same cluster across domains" means matched by another head (U22), in either map.

    Args:
        weight: 0.5, then 0.3 from epoch 51 on in the paper.
        alpha_0: Of Eq. 12-13; not given in the paper (U12). Above 1 the loss rewards collapse.
        s_0: Of Eq. 12; not given in the paper (U13).
        intra_day, intra_night: w_1 of Eq. 11, from the paper.
        class_factor: Of Eq. 13, from the paper.
        feature: "neck": the unit feature of Eq. 2; "pooled": before the batch-norm neck; not given in the paper (U18).
        num_kernels: Gaussians in the kernel's sum, 1 = a single one; not given in the paper (U15), 5 is MMD-ReID's.
        reading: "printed": Eq. 10-14 as they stand. "silent": pairs across the domains below S_ada weigh 0. "attract":
            same-domain pairs of a cluster pull together. "root": the root of Eq. 14. Compared in projects/CIA.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 0.5), (51, 0.3)),
        alpha_0: NotNegative = 1.0,
        s_0: Finite = 0.1,
        intra_day: NotNegative = 0.30,
        intra_night: NotNegative = 0.35,
        class_factor: NotNegative = 1.1,
        feature: Feature = "neck",
        num_kernels: Count = 5,
        reading: MaaReading = "printed",
    ) -> None:
        super().__init__(weight=weight)
        self.feature = feature
        self.factors: dict[str, Any] = {
            "alpha_0": alpha_0,
            "s_0": s_0,
            "intra_day": intra_day,
            "intra_night": intra_night,
            "class_factor": class_factor,
            "num_kernels": num_kernels,
            "reading": reading,
        }

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        x, y, day, night = aligned_features(batch, self.feature)
        maps = both_maps(parts, day.targets)
        result = maa_loss(x, y, day.targets, night.targets, *maps, **self.factors)
        self.statistics = {"cross_to_intra": result.cross_to_intra}
        return result.loss
