"""The mask loss of DNDM: the suppression mask of its stem is trained to tell night from day."""

from __future__ import annotations

import torch
from torch import Tensor

from ....functional.losses.glare import mask_loss
from ...batch import BatchFeatures
from ...parts import Parts
from ..base import LOSS_HEAD_REGISTRY, LossHead, Schedule


@LOSS_HEAD_REGISTRY.register()
class GlareMask(LossHead):
    """`mask_loss` of the encoder's output ``"glare"``, the logits of a suppression mask s in [0.5, 1).

    Args:
        weight: Piecewise constant over the epochs.
        as_released: A second sigmoid, of s itself. The loss then stays between 0.644 and 0.894.
    """

    needs = ("glare",)
    reads_features = False

    def __init__(self, *, weight: Schedule = ((1, 1.0),), as_released: bool = False) -> None:
        super().__init__(weight=weight)
        self.as_released = as_released

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        logits, night = batch.extra["glare"], batch.domains == 1
        shares = torch.sigmoid(logits.detach())
        self.statistics = {"mask_day": shares[~night].mean(), "mask_night": shares[night].mean()}
        return mask_loss(torch.sigmoid(logits) if self.as_released else logits, batch.domains)
