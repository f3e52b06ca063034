"""Contrast of an image with the clusters as its own camera sees them."""

from __future__ import annotations

from torch import Tensor

from dnreid_plugins.functional.losses.contrast import cluster_nce
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads.base import LOSS_HEAD_REGISTRY, LossHead, Schedule
from dnreid_plugins.modeling.parts import Parts
from dnreid_plugins.runtime.sections import Positive


@LOSS_HEAD_REGISTRY.register()
class CameraContrast(LossHead):
    """Mean over the cameras of the batch; it needs the refiner `CameraClusters`.

    Args:
        weight: Piecewise constant over the epochs.
        temperature: Softmax temperature.
    """

    def __init__(self, *, weight: Schedule = ((1, 0.5),), temperature: Positive = 0.07) -> None:
        super().__init__(weight=weight)
        self.temperature = temperature

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        assert parts.epoch is not None
        losses = []
        for camera in batch.cams.unique().tolist():
            own, name = batch.where(batch.cams == camera), f"camera_{camera}"
            targets, rows = parts.epoch.targets(name, own.indices), parts.memory.rows(name)
            losses.append(cluster_nce(own.unit, targets, rows, temperature=self.temperature))
        return sum(losses, start=batch.features.sum() * 0.0) / max(len(losses), 1)
