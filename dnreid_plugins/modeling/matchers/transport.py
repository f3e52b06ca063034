"""Matching by optimal transport between the clusters of the two domains (RPNR)."""

from __future__ import annotations

import torch

from ...functional.matching.transport import sinkhorn_argmax
from ...functional.types import Assignment, Epoch
from ...runtime.sections import Positive
from .base import MATCHER_REGISTRY, Matcher


@MATCHER_REGISTRY.register()
class SinkhornMatcher(Matcher):
    """Many to one: a cluster's partner is where the transport plan sends most of it, at the cost ``exp(-cosine)``.

    Args:
        reg: Weight of the plan's entropy; the smaller, the nearer the plan is to that of the least cost.
    """

    def __init__(self, *, reg: Positive = 5.0) -> None:
        super().__init__()
        self.reg = reg

    def match(self, epoch: Epoch, *, first: int = 1) -> tuple[Assignment, dict[str, float]]:
        return sinkhorn_argmax(torch.exp(-epoch.day.centroids @ epoch.night.centroids.T), self.reg), {}
