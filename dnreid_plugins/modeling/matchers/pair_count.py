"""Matching by the number of similar image pairs (ADCA's CMA)."""

from __future__ import annotations

from ...functional.matching.pair_count import pair_count_matching
from ...functional.types import Assignment, Epoch
from ...runtime.sections import Finite
from .base import MATCHER_REGISTRY, Matcher


@MATCHER_REGISTRY.register()
class PairCountMatcher(Matcher):
    """Greedy one-to-one matching by similar image pairs.

    Args:
        similarity_threshold: Image pairs whose cosine is at or above it count for their clusters.
    """

    def __init__(self, *, similarity_threshold: Finite = 0.5) -> None:
        super().__init__()
        self.similarity_threshold = similarity_threshold

    def match(self, epoch: Epoch, *, first: int = 1) -> tuple[Assignment, dict[str, float]]:
        day, night = epoch.day, epoch.night
        return pair_count_matching(
            day.features, day.labels, night.features, night.labels, threshold=self.similarity_threshold
        ), {}
