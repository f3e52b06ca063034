"""Images classified by the texts of all identities (CLIP-ReID's second stage)."""

from __future__ import annotations

import torch
from torch import Tensor

from dnreid_plugins.functional.losses.image_text import smoothed_cross_entropy
from dnreid_plugins.functional.types import Epoch
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads.base import LOSS_HEAD_REGISTRY, LossHead, Schedule, joint_targets
from dnreid_plugins.modeling.parts import Parts
from dnreid_plugins.runtime.sections import Share


@LOSS_HEAD_REGISTRY.register()
class IdentityText(LossHead):
    """Cross-entropy of an image's projection against one text per identity, which stays as the stage has made it.

    Args:
        weight: Piecewise constant over the epochs.
        smoothing: Of the labels.
    """

    stages = ("LearnIdentityPrompts",)
    reads = ("joint",)
    texts: Tensor

    def __init__(self, *, weight: Schedule = ((1, 1.0),), smoothing: Share = 0.1) -> None:
        super().__init__(weight=weight)
        self.smoothing = smoothing
        self.register_buffer("texts", torch.empty(0, 0))

    def prepare(self, texts: Tensor) -> None:
        """Take over the texts ``(C, P)`` of the identities, in their order."""
        self.texts = texts

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        joint = epoch.clusters["joint"].num_clusters
        if len(self.texts) != joint:
            raise ValueError(f"IdentityText has {len(self.texts)} texts for {joint} identities.")
        return {}

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        images = batch.features[:, -self.texts.shape[1] :].float()
        return smoothed_cross_entropy(
            images @ self.texts.T, joint_targets(batch, parts), smoothing=self.smoothing
        )
