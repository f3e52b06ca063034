"""The matchers that CIA is compared with: CMA (ADCA) and PGM."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...functional.aggregation import merge_rows, pair_count_matching
from ...functional.matching import progressive_graph_matching
from ...functional.types import Domain, EpochClusters
from ..batch import BatchFeatures
from ..memory import PrototypeMemory
from .base import LOSS_HEAD_REGISTRY, LossHead
from .dgm import cross_domain_contrast


@LOSS_HEAD_REGISTRY.register()
class CMA(LossHead):
    """ADCA's cross-modality memory aggregation: matched rows are mixed once per epoch; it adds no loss.

    Args:
        weight: > 0 switches it on; the value does not matter.
        similarity_threshold: image pairs at or above it count for their clusters.
        momentum: share of the own row that stays.
        one_sided: as released, night rows stay as they are and merged rows are not renormalised.
    """

    has_loss = False

    def __init__(
        self,
        *,
        weight: Sequence[Sequence[float]] = ((51, 1.0),),
        similarity_threshold: float = 0.5,
        momentum: float = 0.1,
        one_sided: bool = False,
    ) -> None:
        super().__init__(weight=weight)
        self.similarity_threshold = similarity_threshold
        self.momentum = momentum
        self.one_sided = one_sided

    def begin_epoch(self, clusters: EpochClusters, memory: PrototypeMemory) -> dict[str, float]:
        day, night = clusters.day, clusters.night
        self.assignment = pair_count_matching(
            day.features, day.labels, night.features, night.labels, threshold=self.similarity_threshold
        )
        rows = [memory.cluster_rows(domain) for domain in Domain]
        merged = merge_rows(
            rows[0],
            rows[1],
            self.assignment,
            momentum=self.momentum,
            one_sided=self.one_sided,
            normalize=not self.one_sided,
        )
        for domain in Domain:
            memory.set_rows(domain, merged[domain])
        return {}


@LOSS_HEAD_REGISTRY.register()
class PGM(LossHead):
    """Progressive graph matching and PGM's alternating cross contrast.

    Args:
        weight: see `LossHead`; PGM's code uses 0.25.
        temperature: of the contrast.
        max_rounds: rounds of Hungarian matching; 0 = until the larger side is covered, the released code does 2.
        alternate: odd epochs contrast night images with day rows, even epochs the reverse; False: both always.
    """

    def __init__(
        self,
        *,
        weight: Sequence[Sequence[float]] = ((51, 0.25),),
        temperature: float = 0.05,
        max_rounds: int = 0,
        alternate: bool = True,
    ) -> None:
        super().__init__(weight=weight)
        self.temperature = temperature
        self.max_rounds = max_rounds
        self.alternate = alternate
        self._directions: tuple[Domain, ...] = tuple(Domain)

    def begin_epoch(self, clusters: EpochClusters, memory: PrototypeMemory) -> dict[str, float]:
        self.assignment = progressive_graph_matching(
            clusters.day.centroids, clusters.night.centroids, max_rounds=self.max_rounds or None
        )
        if self.alternate:
            self._directions = (Domain.NIGHT,) if clusters.epoch % 2 == 1 else (Domain.DAY,)
        return {}

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        total = batch.features.sum() * 0.0
        if self.assignment is None:
            return total
        matched = self.assignment.with_unit_scores()
        for domain in self._directions:
            total = total + cross_domain_contrast(
                batch, memory, matched, domain, temperature=self.temperature
            )
        return total
