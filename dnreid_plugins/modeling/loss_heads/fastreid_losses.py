"""fast-reid's own metric losses next to ours in ``MODEL.LOSSES.NAME``, with their own config sections."""

from __future__ import annotations

from typing import Any

from fastreid.modeling import losses
from torch import Tensor

from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, joint_targets


class FastreidLoss(LossHead):
    """A loss ``f(features (B, D), labels (B,)) -> scalar`` on the images that are in a cluster.

    The labels are those of `joint_targets`; the weight is the ``SCALE`` of fast-reid's section.
    """

    reads_features = False

    def __init__(self, function: Any, scale: float, **options: Any) -> None:
        super().__init__(weight=((1, scale),))
        self.function, self.options = function, options

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        targets = joint_targets(batch, parts)
        known = targets >= 0
        if int(targets[known].unique().numel()) < 2:
            return batch.features.sum() * 0.0
        return self.function(batch.features[known].float(), targets[known], **self.options)


class TripletLoss(FastreidLoss):
    """fast-reid's triplet loss, ``MODEL.LOSSES.TRI``."""

    @classmethod
    def from_config(cls, cfg: Any) -> LossHead:
        own = cfg.MODEL.LOSSES.TRI
        options = {"margin": own.MARGIN, "norm_feat": own.NORM_FEAT, "hard_mining": own.HARD_MINING}
        return cls(losses.triplet_loss, own.SCALE, **options)


class CircleLoss(FastreidLoss):
    """fast-reid's circle loss, ``MODEL.LOSSES.CIRCLE``."""

    @classmethod
    def from_config(cls, cfg: Any) -> LossHead:
        own = cfg.MODEL.LOSSES.CIRCLE
        return cls(losses.pairwise_circleloss, own.SCALE, margin=own.MARGIN, gamma=own.GAMMA)


class Cosface(FastreidLoss):
    """fast-reid's CosFace over pairs, ``MODEL.LOSSES.COSFACE``."""

    @classmethod
    def from_config(cls, cfg: Any) -> LossHead:
        own = cfg.MODEL.LOSSES.COSFACE
        return cls(losses.pairwise_cosface, own.SCALE, margin=own.MARGIN, gamma=own.GAMMA)


for _loss in (TripletLoss, CircleLoss, Cosface):
    # Their sections are fast-reid's, so the constructor does not define one.
    LOSS_HEAD_REGISTRY._do_register(_loss.__name__, _loss)
