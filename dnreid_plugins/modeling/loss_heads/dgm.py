"""Dictionary-guided graph matching: contrast with the matched cluster of the other domain (CIA Eq. 4-9)."""

from __future__ import annotations

from torch import Tensor

from ...functional.losses.contrast import mapped_targets
from ...functional.types import Domain
from ...runtime.sections import Positive
from ..batch import BatchFeatures
from ..matchers.dictionary import DictionaryMatcher
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule
from .cross_contrast import cross_domain_contrast


@LOSS_HEAD_REGISTRY.register()
class DGM(LossHead):
    """Matches once per epoch on the epoch-start centroids (U7), then adds ``L_d2n + L_n2d``.

    Args:
        weight: 0.3 from epoch 51 on in the paper.
        matcher: The dictionary.
        temperature: Of Eq. 8; not given in the paper (U3).
        match_always: Match in stage 1 too; not given in the paper (U22). There is no loss then, but the matching is
            available to its users: class factor of MAA, groups of MarginMMD and, with DATALOADER.PAIRED, the sampler.
        update_other: Let matched features update the other domain's rows as PGM's code does; not given in the paper
            (U6).
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((51, 0.3),),
        matcher: DictionaryMatcher,
        temperature: Positive = 0.05,
        match_always: bool = False,
        update_other: bool = False,
    ) -> None:
        super().__init__(weight=weight, matcher=matcher, match_always=match_always)
        self.temperature = temperature
        self.update_other = update_other

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        assignment = parts.matching("DGM")
        if assignment is None:
            return batch.features.sum() * 0.0
        day, night = (
            cross_domain_contrast(batch, parts, assignment, domain, temperature=self.temperature)
            for domain in Domain
        )
        return day + night

    def after_step(self, batch: BatchFeatures, parts: Parts) -> None:
        assignment = parts.matching("DGM")
        if self.update_other and assignment is not None:
            for domain in Domain:
                part = batch.of(domain)
                targets = mapped_targets(part.targets, assignment.partner(domain)[0])
                parts.memory.update(domain.other, part.unit, targets)
