"""A linear classifier of joint clusters, such as identities."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnreid_plugins.functional.types import Epoch
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads.base import LOSS_HEAD_REGISTRY, LossHead, Schedule, joint_targets
from dnreid_plugins.modeling.parts import Parts


@LOSS_HEAD_REGISTRY.register()
class IdentityClassifier(LossHead):
    """Cross-entropy of the neck features; the layer is drawn in the first epoch and learns from then on.

    Args:
        weight: Piecewise constant over the epochs.

    Attributes:
        layer: ``(C, D)``; empty before the first epoch.
    """

    reads = ("joint",)

    def __init__(self, *, weight: Schedule = ((1, 1.0),)) -> None:
        super().__init__(weight=weight)
        self.layer = nn.Parameter(torch.empty(0, 0))

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        shape = epoch.clusters["joint"].centroids.shape
        if self.layer.shape != shape:
            drawn = 0.001 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
            self.layer.data = drawn.to(self.layer)
        return {}

    def forget(self) -> None:
        self.layer.data = self.layer.data.new_empty(0, 0)

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        targets = joint_targets(batch, parts)
        if not bool((targets >= 0).any()):
            return batch.features.sum() * 0.0
        return F.cross_entropy(batch.features.float() @ self.layer.T, targets, ignore_index=-1)
