"""Contrast of each image with the cluster prototypes of its own domain (CIA Eq. 2-3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ...functional.contrast import cluster_nce
from ...functional.types import Domain
from ..batch import BatchFeatures
from ..memory import PrototypeMemory
from .base import LOSS_HEAD_REGISTRY, LossHead


@LOSS_HEAD_REGISTRY.register()
class ClusterNCE(LossHead):
    """Sum over the domains of the mean InfoNCE loss against that domain's rows.

    Args:
        weight: see `LossHead`.
        temperature: softmax temperature; the paper is silent, 0.05 is ADCA's and ClusterContrast's.
    """

    def __init__(self, *, weight: Sequence[Sequence[float]] = ((1, 1.0),), temperature: float = 0.05) -> None:
        super().__init__(weight=weight)
        self.temperature = temperature

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part = batch.of(domain)
            total = total + cluster_nce(
                part.unit, part.targets, memory.rows(domain), temperature=self.temperature
            )
        return total
