"""Contrast of each image with the cluster prototypes of its own domain (CIA Eq. 2-3)."""

from __future__ import annotations

from torch import Tensor

from ...functional.losses.contrast import cluster_nce
from ...functional.types import Domain
from ...runtime.sections import Positive
from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule


@LOSS_HEAD_REGISTRY.register()
class ClusterNCE(LossHead):
    """Sum over the domains of the mean InfoNCE loss against that domain's rows.

    Args:
        weight: Piecewise constant over the epochs.
        temperature: Softmax temperature; not given by CIA (U3); 0.05 is that of ADCA and ClusterContrast.
    """

    def __init__(self, *, weight: Schedule = ((1, 1.0),), temperature: Positive = 0.05) -> None:
        super().__init__(weight=weight)
        self.temperature = temperature

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part = batch.of(domain)
            total = total + cluster_nce(
                part.unit, part.targets, parts.memory.rows(domain), temperature=self.temperature
            )
        return total
