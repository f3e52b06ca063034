"""Contrast of the images of both domains with the prototypes of clusters that span them."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ...functional.losses.contrast import cluster_nce
from ...functional.losses.hybrid import hybrid_nce
from ...functional.types import Domain, StreamName
from ...runtime.sections import Positive, construct
from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule, check_hard_bank


@LOSS_HEAD_REGISTRY.register()
class JointContrast(LossHead):
    """InfoNCE against the rows of clusters that a label source or a refiner makes beside those of each domain.

    Args:
        weight: Piecewise constant over the epochs.
        temperature: Softmax temperature.
        clusters: Name of the clusters.
        stream: Of which batches it is a loss, one of DATALOADER.STREAMS.
        per_domain: Sum of the means over day and over night images; False: the mean over all images.
        bank: Rows to contrast with: "own", or "hybrid": those and the bank "hard" (MODEL.MEMORY.EXTRA_BANKS).
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 1.0),),
        temperature: Positive = 0.05,
        clusters: str = "joint",
        stream: StreamName = "joint",
        per_domain: bool = True,
        bank: Literal["own", "hybrid"] = "own",
    ) -> None:
        super().__init__(weight=weight)
        self.bank = bank
        self.temperature, self.clusters, self.per_domain = temperature, clusters, per_domain
        self.stream = stream
        self.reads = (clusters,)  # type: ignore[misc]

    @classmethod
    def from_config(cls, cfg: Any) -> Any:
        head = construct(cls, cfg)
        if head.bank == "hybrid":
            check_hard_bank(cfg, cls.__name__)
        return head

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        total = batch.features.sum() * 0.0
        if parts.epoch is None:
            return total
        for part in [batch.of(domain) for domain in Domain] if self.per_domain else [batch]:
            total = total + self.contrast(part, parts.epoch.targets(self.clusters, part.indices), parts)
        return total

    def contrast(self, part: BatchFeatures, targets: Tensor, parts: Parts) -> Tensor:
        """The contrast of some images with the rows, given their clusters ``(B,)``."""
        rows = parts.memory.rows(self.clusters)
        if self.bank == "hybrid":
            hard = parts.memory.rows(self.clusters, "hard")
            return hybrid_nce(part.unit, targets, rows, hard, temperature=self.temperature)
        return cluster_nce(part.unit, targets, rows, temperature=self.temperature)


@LOSS_HEAD_REGISTRY.register()
class SharedContrast(JointContrast):
    """`JointContrast` once more, for clusters that both domains share and the batches of each domain.

    Args:
        weight: Piecewise constant over the epochs.
        temperature: Softmax temperature.
        clusters: Name of the clusters.
        stream: Of which batches it is a loss, one of DATALOADER.STREAMS.
        per_domain: Sum of the means over day and over night images; False: the mean over all images.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 1.0),),
        temperature: Positive = 0.05,
        clusters: str = "shared",
        stream: StreamName = "domains",
        per_domain: bool = True,
    ) -> None:
        super().__init__(
            weight=weight, temperature=temperature, clusters=clusters, stream=stream, per_domain=per_domain
        )
