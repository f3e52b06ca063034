"""Contrast of a batch with the matched clusters of the other domain."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ...functional.losses.contrast import mapped_targets, mutual_mapping_loss
from ...functional.losses.hybrid import hybrid_nce
from ...functional.types import Assignment, Domain
from ...runtime.sections import Positive, construct
from ..batch import BatchFeatures
from ..matchers.base import Matcher, matcher_named
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule, check_hard_bank, contrasted_domains


@LOSS_HEAD_REGISTRY.register()
class CrossContrast(LossHead):
    """Matches once per epoch, then contrasts images with the matched cluster's row of the other domain.

    Args:
        weight: Piecewise constant over the epochs.
        matcher: Which clusters are matched: the name of a matcher, whose keys are in MODEL.MATCHERS.
        temperature: Softmax temperature.
        directions: "both"; or "alternate": odd epochs contrast night images with day rows, even epochs the reverse.
        scores: Weigh a pair by the matcher's score; False: each pair counts 1.
        update_other: Matched images also move the other domain's row.
        match_always: Match also in epochs with weight 0, for other parts and for paired batches.
        bank: Rows to contrast with: "own", or "hybrid": those and the bank "hard" (MODEL.MEMORY.EXTRA_BANKS), where
            each pair counts 1.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((51, 0.25),),
        matcher: str | Matcher = "ProgressiveMatcher",
        temperature: Positive = 0.05,
        directions: Literal["both", "alternate"] = "both",
        scores: bool = False,
        update_other: bool = False,
        match_always: bool = False,
        bank: Literal["own", "hybrid"] = "own",
    ) -> None:
        chosen = matcher_named(matcher) if isinstance(matcher, str) else matcher
        super().__init__(weight=weight, matcher=chosen, match_always=match_always)
        self.temperature, self.directions = temperature, directions
        self.scores, self.update_other, self.bank = scores, update_other, bank

    @classmethod
    def from_config(cls, cfg: Any) -> Any:
        head = construct(cls, cfg)
        if cls is CrossContrast:  # a subclass has its matcher's keys in its own section
            head.matcher = matcher_named(type(head.matcher).__name__, cfg)
        if head.bank == "hybrid":
            check_hard_bank(cfg, cls.__name__)
        return head

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        total = batch.features.sum() * 0.0
        assignment = parts.matching(self.name)
        if assignment is None:
            return total
        for domain in self.directions_in(parts):
            total = total + self.contrast(batch.of(domain), parts, assignment, domain)
        return total

    def contrast(self, part: BatchFeatures, parts: Parts, assignment: Assignment, domain: Domain) -> Tensor:
        """The images ``part`` of ``domain`` against the live rows of the other one."""
        partner, score = (assignment if self.scores else assignment.with_unit_scores()).partner(domain)
        rows = parts.memory.cluster_rows(domain.other)
        own, to = part.targets, partner.to(part.targets)
        if self.bank == "hybrid":
            hard = parts.memory.cluster_rows(domain.other, "hard")
            return hybrid_nce(part.unit, mapped_targets(own, to), rows, hard, temperature=self.temperature)
        return mutual_mapping_loss(part.unit, own, to, score.to(rows), rows, temperature=self.temperature)

    def directions_in(self, parts: Parts) -> tuple[Domain, ...]:
        """The domains whose images are contrasted in the running epoch."""
        assert parts.epoch is not None
        return contrasted_domains(parts.epoch.number, alternate=self.directions == "alternate")

    def after_step(self, batch: BatchFeatures, parts: Parts) -> None:
        assignment = parts.matching(self.name)
        if self.update_other and assignment is not None:
            for domain in Domain:
                part = batch.of(domain)
                targets = mapped_targets(part.targets, assignment.partner(domain)[0])
                parts.memory.update(domain.other, part.unit, targets)
