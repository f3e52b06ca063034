"""Progressive graph matching (PGM): rounds of Hungarian matching until the larger side is covered."""

from __future__ import annotations

from ...functional.matching.graphs import progressive_graph_matching
from ...functional.types import Assignment, Epoch
from ...runtime.sections import CountOrNone
from .base import MATCHER_REGISTRY, Matcher


@MATCHER_REGISTRY.register()
class ProgressiveMatcher(Matcher):
    """Many-to-one: every cluster of the larger side gets a partner.

    Args:
        max_rounds: Rounds of Hungarian matching; 0 = until every cluster of the larger side has a partner (the
            released code does 2).
    """

    def __init__(self, *, max_rounds: CountOrNone = 0) -> None:
        super().__init__()
        self.max_rounds = max_rounds

    def match(self, epoch: Epoch, *, first: int = 1) -> tuple[Assignment, dict[str, float]]:
        rounds = self.max_rounds or None
        return progressive_graph_matching(epoch.day.centroids, epoch.night.centroids, max_rounds=rounds), {}
