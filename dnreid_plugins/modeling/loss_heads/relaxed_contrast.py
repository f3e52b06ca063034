"""Relation among the neighbours of a batch (RPNR)."""

from __future__ import annotations

from torch import Tensor

from ...functional.losses.relaxed_contrast import relaxed_contrast
from ...functional.types import Domain
from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule


@LOSS_HEAD_REGISTRY.register()
class RelaxedContrast(LossHead):
    """Sum over the domains of `relaxed_contrast`: near pairs of images are drawn together, far ones pushed apart.

    Args:
        weight: Piecewise constant over the epochs.
        as_released: On features that were not brought to unit length, whose pairs all have the weight 0: the loss then
            only pushes, images of one cluster included.
    """

    def __init__(self, *, weight: Schedule = ((51, 10.0),), as_released: bool = False) -> None:
        super().__init__(weight=weight)
        self.as_released = as_released

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part = batch.of(domain)
            total = total + relaxed_contrast(part.features, normalise=not self.as_released)
        return total
