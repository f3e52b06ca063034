"""The margin-free weighted triplet loss of AGW, and its squared form of CAJ."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads.base import LOSS_HEAD_REGISTRY, LossHead, Schedule, joint_targets
from dnreid_plugins.modeling.matchers import JointMatcher
from dnreid_plugins.modeling.parts import Parts


def weighted_triplet(features: Tensor, targets: Tensor, *, squared: bool) -> Tensor:
    """Mean softplus of the difference between the weighted distances to positives and to negatives.

    Args:
        features: ``(B, D)``.
        targets: ``(B,)`` int64; -1 is left out, as is an anchor without a negative.
        squared: the difference counts with its square, at most 88, and its sign.
    """
    features, targets = features[targets >= 0].float(), targets[targets >= 0]
    same = targets[:, None] == targets
    anchors = (~same).any(dim=1)
    if not bool(anchors.any()):
        return features.sum() * 0.0
    squares = (features[:, None] - features).square().sum(dim=2)[anchors]
    distances, same = squares.clamp(min=1e-12).sqrt(), same[anchors]
    furthest = (distances.masked_fill(~same, -torch.inf).softmax(dim=1) * distances).sum(dim=1)
    closest = ((-distances).masked_fill(same, -torch.inf).softmax(dim=1) * distances).sum(dim=1)
    difference = furthest - closest
    if squared:
        difference = difference.sign() * difference.square().clamp(max=88)
    return F.softplus(difference).mean()


@LOSS_HEAD_REGISTRY.register()
class WeightedTriplet(LossHead):
    """`weighted_triplet` of the features before the neck, over all views of both domains.

    Args:
        weight: Piecewise constant over the epochs.
        matcher: For batches of pairs (DATALOADER.PAIRED).
        squared: CAJ's form.
    """

    def __init__(
        self, *, weight: Schedule = ((1, 1.0),), matcher: JointMatcher, squared: bool = True
    ) -> None:
        super().__init__(weight=weight, matcher=matcher)
        self.squared = squared

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        return weighted_triplet(batch.pooled, joint_targets(batch, parts), squared=self.squared)
