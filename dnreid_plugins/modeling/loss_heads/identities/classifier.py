"""A linear classifier of labels that stay the same in every epoch, such as identities."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ....functional.losses.image_text import smoothed_cross_entropy
from ....functional.types import Epoch
from ....runtime.sections import Share
from ...batch import BatchFeatures
from ...parts import Parts
from ..base import LOSS_HEAD_REGISTRY, LossHead, Schedule, joint_targets

SPREAD = 0.001


@LOSS_HEAD_REGISTRY.register()
class IdentityClassifier(LossHead):
    """Cross-entropy of the neck feature, as it is, over the joint clusters; one bias-free layer for both domains.

    The layer is drawn with deviation 0.001 in the first epoch, from the run's seed, and learns from then on.

    Args:
        weight: Piecewise constant over the epochs.
        smoothing: Of the labels.

    Attributes:
        layer: ``(C, D)``; empty before the first epoch.

    Raises:
        ValueError: an epoch has another number of joint clusters than the one before.
    """

    reads = ("joint",)
    reads_features = False

    def __init__(self, *, weight: Schedule = ((1, 1.0),), smoothing: Share = 0.0) -> None:
        super().__init__(weight=weight)
        self.smoothing = smoothing
        self.layer = nn.Parameter(torch.empty(0, 0))
        self._seed = int(torch.randint(2**31, ()))

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        shape = epoch.clusters["joint"].centroids.shape
        if self.layer.numel() == 0:
            drawn = SPREAD * torch.randn(shape, generator=torch.Generator().manual_seed(self._seed))
            self.layer.data = drawn.to(self.layer)
        elif self.layer.shape != shape:
            raise ValueError(
                f"IdentityClassifier has learned {len(self.layer)} classes, epoch {epoch.number} has {shape[0]} "
                "joint clusters; choose labels that stay the same, such as LABELS.SOURCE Identities."
            )
        return {}

    def for_encoder(self) -> dict[str, Tensor]:
        return {"classifier": self.layer}

    def forget(self) -> None:
        self.layer.data = self.layer.data.new_empty(0, 0)

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        logits = batch.features.to(self.layer.dtype) @ self.layer.T
        return smoothed_cross_entropy(logits, joint_targets(batch, parts), smoothing=self.smoothing)
