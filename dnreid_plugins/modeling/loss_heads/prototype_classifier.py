"""Prototype-driven classification of Bridging Day and Night (Eq. 7/8): a linear layer initialised with the memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...functional.losses.image_text import smoothed_cross_entropy
from ...functional.types import Domain, Epoch
from ...runtime.sections import Share
from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule


@LOSS_HEAD_REGISTRY.register()
class PrototypeClassifier(LossHead):
    """One bias-free linear layer per domain, sized to its clusters and set to their rows at each epoch's start.

    The released code has 3000 outputs, crashes above that and lets old momentum move the new rows (T7); here the
    optimizer state of a layer is reset with it.

    Args:
        weight: Piecewise constant over the epochs.
        smoothing: Of the labels.

    Attributes:
        day, night: ``(C, D)``, ``D`` the width of the neck feature; empty before the first epoch.
    """

    fresh_each_epoch = True

    def __init__(self, *, weight: Schedule = ((1, 1.0),), smoothing: Share = 0.1) -> None:
        super().__init__(weight=weight)
        self.smoothing = smoothing
        self.day = nn.Parameter(torch.empty(0, 0))
        self.night = nn.Parameter(torch.empty(0, 0))

    def rows(self, domain: Domain | int) -> nn.Parameter:
        """The layer of one domain."""
        return self.day if int(domain) == Domain.DAY else self.night

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        for domain in Domain:
            layer = self.rows(domain)
            layer.data = parts.memory.cluster_rows(domain).clone()
            layer.grad = None
        return {}

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        """``sum_r mean_i CE(W_r u_i, y_i)``, ``u`` the neck feature as it is, not of unit length."""
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part, layer = batch.of(domain), self.rows(domain)
            logits = part.features.to(layer.dtype) @ layer.T
            total = total + smoothed_cross_entropy(logits, part.targets, smoothing=self.smoothing)
        return total
