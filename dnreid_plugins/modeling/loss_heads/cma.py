"""ADCA's cross-modality memory aggregation: the rows of matched clusters are mixed once per epoch."""

from __future__ import annotations

from ...functional.matching.pair_count import merge_rows
from ...functional.types import Domain, Epoch
from ...runtime.sections import Share
from ..matchers.pair_count import PairCountMatcher
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule


@LOSS_HEAD_REGISTRY.register()
class CMA(LossHead):
    """Mixes the rows of matched clusters at an epoch's start; it adds no loss.

    Args:
        weight: Above 0 switches it on; the value does not matter.
        matcher: Which clusters are matched.
        momentum: Share of the own row that stays.
        one_sided: As released: only the day rows change and they are not renormalised.
    """

    has_loss = False

    def __init__(
        self,
        *,
        weight: Schedule = ((51, 1.0),),
        matcher: PairCountMatcher,
        momentum: Share = 0.1,
        one_sided: bool = False,
    ) -> None:
        super().__init__(weight=weight, matcher=matcher)
        self.momentum = momentum
        self.one_sided = one_sided

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        assignment, memory = epoch.matchings[self.name], parts.memory
        merged = merge_rows(
            memory.cluster_rows(Domain.DAY),
            memory.cluster_rows(Domain.NIGHT),
            assignment,
            momentum=self.momentum,
            one_sided=self.one_sided,
            normalize=not self.one_sided,
        )
        for domain in Domain:
            memory.set_rows(domain, merged[domain])
        return {}
