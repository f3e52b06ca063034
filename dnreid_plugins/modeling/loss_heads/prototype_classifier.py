"""Prototype-driven classification of Bridging Day and Night (Eq. 7/8): a linear layer that starts as the memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...functional.image_text import smoothed_cross_entropy
from ...functional.types import Domain, EpochClusters
from ..batch import BatchFeatures
from ..memory import PrototypeMemory
from .base import LOSS_HEAD_REGISTRY, LossHead


@LOSS_HEAD_REGISTRY.register()
class PrototypeClassifier(LossHead):
    """One bias-free linear layer per domain, sized to its clusters and set to their rows at each epoch's start.

    The released code has 3000 outputs, crashes above that and lets old momentum move the new rows (T7); here the
    optimizer forgets a layer when it is set anew.

    Args:
        weight: see `LossHead`.
        smoothing: of the labels, in [0, 1].

    Attributes:
        day, night: ``(C, D)``, ``D`` the width of the neck feature; empty before the first epoch.
    """

    follows_clusters = True

    def __init__(self, *, weight: Sequence[Sequence[float]] = ((1, 1.0),), smoothing: float = 0.1) -> None:
        super().__init__(weight=weight)
        if not 0.0 <= smoothing <= 1.0:
            raise ValueError(f"MODEL.LOSSES.PROTOTYPECLASSIFIER.SMOOTHING is {smoothing}; it lies in [0, 1].")
        self.smoothing = smoothing
        self.day = nn.Parameter(torch.empty(0, 0))
        self.night = nn.Parameter(torch.empty(0, 0))

    def rows(self, domain: Domain | int) -> nn.Parameter:
        """The layer of one domain."""
        return self.day if int(domain) == Domain.DAY else self.night

    def begin_epoch(self, clusters: EpochClusters, memory: PrototypeMemory) -> dict[str, float]:
        for domain in Domain:
            layer = self.rows(domain)
            layer.data = memory.cluster_rows(domain).clone()
            layer.grad = None
        return {}

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        """``sum_r mean_i CE(W_r u_i, y_i)``, ``u`` the neck feature as it is, not of unit length."""
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part, layer = batch.of(domain), self.rows(domain)
            logits = part.features.to(layer.dtype) @ layer.T
            total = total + smoothed_cross_entropy(logits, part.targets, smoothing=self.smoothing)
        return total

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A checkpoint's layers have the sizes of its own epoch."""
        for name, layer in self.named_parameters(recurse=False):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.shape != layer.shape:
                layer.data = layer.data.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
