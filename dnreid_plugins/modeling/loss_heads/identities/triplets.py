"""Triplet losses of the feature before the neck, over the images of both domains and all their views."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ....functional.losses.triplets import centre_triplet, hard_triplet, weighted_triplet
from ....runtime.sections import CountOrNone, NotNegative
from ...batch import BatchFeatures
from ...matchers import JointMatcher
from ...parts import Parts
from ..base import LOSS_HEAD_REGISTRY, LossHead, Schedule, joint_targets


@LOSS_HEAD_REGISTRY.register()
class WeightedTriplet(LossHead):
    """Margin-free triplet loss whose pairs are weighted by a softmax of their distance (AGW; squared: CAJ).

    Args:
        weight: Piecewise constant over the epochs.
        matcher: For batches of pairs (DATALOADER.PAIRED).
        squared: The difference of the two distances counts with its square, at most 88.
        as_released: Weights as the released code normalises them: those of the negatives vanish at large distances.
    """

    reads_features = False

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 1.0),),
        matcher: JointMatcher,
        squared: bool = False,
        as_released: bool = False,
    ) -> None:
        super().__init__(weight=weight, matcher=matcher)
        self.squared, self.as_released = squared, as_released

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        targets = joint_targets(batch, parts)
        return weighted_triplet(batch.pooled, targets, squared=self.squared, as_released=self.as_released)


@LOSS_HEAD_REGISTRY.register()
class HardTriplet(LossHead):
    """Triplet loss of the furthest image of the identity and the nearest one of the others.

    Args:
        weight: Piecewise constant over the epochs.
        matcher: For batches of pairs (DATALOADER.PAIRED).
        margin: By which the other identity must be further.
        within: Where both are sought: in the whole "batch", or in the image's own "domain".
    """

    reads_features = False

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 1.0),),
        matcher: JointMatcher,
        margin: NotNegative = 0.3,
        within: Literal["batch", "domain"] = "batch",
    ) -> None:
        super().__init__(weight=weight, matcher=matcher)
        self.margin, self.within = margin, within

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        domains = batch.domains if self.within == "domain" else None
        return hard_triplet(batch.pooled, joint_targets(batch, parts), margin=self.margin, domains=domains)


@LOSS_HEAD_REGISTRY.register()
class CentreTriplet(LossHead):
    """Each image to the centre of its identity in the batch, the centres of two identities apart (DCLNet).

    Args:
        weight: Piecewise constant over the epochs.
        matcher: For batches of pairs (DATALOADER.PAIRED).
        margin: Smallest distance of two centres that costs nothing.
        stride: Only every so many-th image of the batch repels other identities; 0 = all. The released code has 8
            where each identity has 4 images in a row, which leaves every second identity out.
    """

    reads_features = False

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 1.0),),
        matcher: JointMatcher,
        margin: NotNegative = 0.7,
        stride: CountOrNone = 0,
    ) -> None:
        super().__init__(weight=weight, matcher=matcher)
        self.margin, self.stride = margin, stride

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        targets = joint_targets(batch, parts)
        return centre_triplet(batch.pooled, targets, margin=self.margin, stride=self.stride or None)
