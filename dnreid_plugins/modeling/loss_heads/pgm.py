"""Progressive graph matching with alternating cross contrast (PGM)."""

from __future__ import annotations

from torch import Tensor

from ...functional.types import Domain
from ...runtime.sections import Positive
from ..batch import BatchFeatures
from ..matchers.progressive import ProgressiveMatcher
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule
from .cross_contrast import cross_domain_contrast


@LOSS_HEAD_REGISTRY.register()
class PGM(LossHead):
    """Contrast with the matched cluster of the other domain, each pair with weight 1.

    Args:
        weight: PGM's code uses 0.25.
        matcher: Which clusters are matched.
        temperature: Of the contrast.
        alternate: Odd epochs contrast night images with day rows, even epochs the reverse; False: both always.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((51, 0.25),),
        matcher: ProgressiveMatcher,
        temperature: Positive = 0.05,
        alternate: bool = True,
    ) -> None:
        super().__init__(weight=weight, matcher=matcher)
        self.temperature = temperature
        self.alternate = alternate

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        total = batch.features.sum() * 0.0
        assignment = parts.matching("PGM")
        if parts.epoch is None or assignment is None:
            return total
        directions = tuple(Domain)
        if self.alternate:
            directions = (Domain.NIGHT,) if parts.epoch.number % 2 == 1 else (Domain.DAY,)
        matched = assignment.with_unit_scores()
        for domain in directions:
            total = total + cross_domain_contrast(batch, parts, matched, domain, temperature=self.temperature)
        return total
