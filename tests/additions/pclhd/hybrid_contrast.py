"""Contrast with the mean and with the hardest prototypes of a hybrid memory (PCLHD)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import cluster_nce
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads.base import LOSS_HEAD_REGISTRY, LossHead, Schedule
from dnreid_plugins.modeling.parts import Parts
from dnreid_plugins.runtime.sections import NotNegative, Positive


@LOSS_HEAD_REGISTRY.register()
class HybridContrast(LossHead):
    """Sum over the domains of ``(CE_hard + max(CE_mean - floor, 0)) / 2``.

    Args:
        weight: Piecewise constant over the epochs.
        temperature: Softmax temperature.
        floor: Below it the contrast with the mean rows trains nothing.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 1.0),),
        temperature: Positive = 0.05,
        floor: NotNegative = 0.2,
    ) -> None:
        super().__init__(weight=weight)
        self.temperature, self.floor = temperature, floor

    @classmethod
    def from_config(cls, cfg: Any) -> Any:
        if "hard" not in [bank for bank, _ in cfg.MODEL.MEMORY.EXTRA_BANKS]:
            raise ValueError(
                "HybridContrast needs a bank called 'hard'; set MODEL.MEMORY.EXTRA_BANKS "
                "(('hard', 'hardest_of_own'),)."
            )
        return super().from_config(cfg)

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part = batch.of(domain)
            mean, hard = (
                cluster_nce(
                    part.unit, part.targets, parts.memory.rows(domain, bank), temperature=self.temperature
                )
                for bank in ("own", "hard")
            )
            total = total + (hard + torch.relu(mean - self.floor)) / 2
        return total
