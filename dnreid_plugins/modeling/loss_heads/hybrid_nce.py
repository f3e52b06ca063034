"""Contrast with the mean and with the hardest prototypes of clusters, per domain and fused across domains."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...functional.losses.contrast import mapped_targets
from ...functional.losses.hybrid import hybrid_nce
from ...functional.matching.pair_count import merge_rows
from ...functional.types import Domain
from ...runtime.sections import NotNegative, Positive
from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule, check_hard_bank, contrasted_domains


@LOSS_HEAD_REGISTRY.register()
class HybridNCE(LossHead):
    """Sum over the domains of ``(CE_hard + max(CE_mean - floor, 0)) / 2`` (PCLHD, RPNR).

    The mean rows are those of the bank "own", which follow the mean of a cluster's images with MODEL.MEMORY.UPDATE
    "mean"; the bank "hard" must be in MODEL.MEMORY.EXTRA_BANKS.

    Args:
        weight: Piecewise constant over the epochs.
        temperature: Softmax temperature.
        floor: Below it the contrast with the mean rows trains nothing.
    """

    def __init__(
        self, *, weight: Schedule = ((1, 1.0),), temperature: Positive = 0.05, floor: NotNegative = 0.2
    ) -> None:
        super().__init__(weight=weight)
        self.temperature, self.floor = temperature, floor

    @classmethod
    def from_config(cls, cfg: Any) -> Any:
        check_hard_bank(cfg, cls.__name__)
        return super().from_config(cfg)

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part = batch.of(domain)
            mean, hard = parts.memory.rows(domain), parts.memory.rows(domain, "hard")
            total = total + self.contrast(part, part.targets, mean, hard)
        return total

    def contrast(self, part: BatchFeatures, targets: Tensor, mean: Tensor, hard: Tensor) -> Tensor:
        """`hybrid_nce` of these images with this head's keys."""
        return hybrid_nce(part.unit, targets, mean, hard, temperature=self.temperature, floor=self.floor)


@LOSS_HEAD_REGISTRY.register()
class FusedContrast(HybridNCE):
    """Contrast with prototypes of both domains: half a night row, half the row of its day partner (RPNR).

    Odd epochs contrast night images by their own clusters, even epochs day images by the night partners of theirs. The
    matching is the last one of the epoch. A night row without a partner stays alone; a day cluster without one has no
    loss. The rows are fused in every step from the live ones, so they stay between the domains; rows of their own,
    moved by the images that are contrasted, would turn into night rows within an odd epoch.

    Args:
        weight: Piecewise constant over the epochs.
        temperature: Softmax temperature.
        floor: Below it the contrast with the mean rows trains nothing.
    """

    def __init__(
        self, *, weight: Schedule = ((51, 0.5),), temperature: Positive = 0.05, floor: NotNegative = 0.2
    ) -> None:
        super().__init__(weight=weight, temperature=temperature, floor=floor)

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        matching = None if parts.epoch is None else parts.epoch.matching
        if parts.epoch is None or matching is None:
            return batch.features.sum() * 0.0
        banks = ([parts.memory.cluster_rows(domain, bank) for domain in Domain] for bank in ("own", "hard"))
        mean, hard = (merge_rows(day, night, matching, momentum=0.5)[1] for day, night in banks)
        if contrasted_domains(parts.epoch.number, alternate=True) == (Domain.NIGHT,):
            part = batch.of(Domain.NIGHT)
            return self.contrast(part, part.targets, mean, hard)
        part = batch.of(Domain.DAY)
        return self.contrast(part, mapped_targets(part.targets, matching.day_to_night), mean, hard)
