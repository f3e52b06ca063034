"""Dictionary-guided graph matching (CIA Eq. 4-7)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ...functional.matching.carry import carried_assignment
from ...functional.matching.dictionary import Scoring
from ...functional.matching.graphs import EmptyGraphPolicy, dictionary_graph_matching
from ...functional.types import Assignment, Epoch
from ...runtime.sections import Finite, NotNegative, Positive
from .base import MATCHER_REGISTRY, Matcher

KEPT = ("day_to_night", "night_to_day", "day_score", "night_score")
KEPT_LABELS = ("day_labels", "night_labels")


@MATCHER_REGISTRY.register()
class DictionaryMatcher(Matcher):
    """Minimum-cost assignment on the thresholded dictionary of the epoch-start centroids (U7).

    Args:
        scoring: How the dictionary scores a pair of clusters (Table 4 of CIA).
        alpha: Slope of Eq. 5.
        similarity_threshold: S_tau of Eq. 5.
        threshold_start, threshold_final: T_0 and final value of the ramp, Eq. 6.
        progress: T_epo over the whole run ("global") or from the first epoch with a weight above 0 on ("stage"), 0
            before that; paper ambiguous (U2).
        penalty: Cost of a pair below the threshold, G_p of Eq. 7; not given in the paper (U8).
        on_empty: When no pair reaches the threshold: "skip" the loss, "keep_last" matching that had a pair (also
            across epochs in which a domain has no cluster at all) or "cap" the threshold; not given in the paper.
        second_round: Match clusters without a partner once more, with any cluster of the other domain; not given in
            the paper (U9).
    """

    day_labels: Tensor
    night_labels: Tensor

    def __init__(
        self,
        *,
        scoring: Scoring = "continuous",
        alpha: NotNegative = 0.2,
        similarity_threshold: Finite = 0.5,
        threshold_start: Finite = 0.7,
        threshold_final: Finite = 1.15,
        progress: Literal["global", "stage"] = "global",
        penalty: Positive = 1.0,
        on_empty: EmptyGraphPolicy = "skip",
        second_round: bool = False,
    ) -> None:
        super().__init__()
        self.progress = progress
        self.on_empty = on_empty
        self.options = {
            "scoring": scoring,
            "alpha": alpha,
            "similarity_threshold": similarity_threshold,
            "threshold_start": threshold_start,
            "threshold_final": threshold_final,
            "penalty": penalty,
            "on_empty": on_empty,
            "second_round": second_round,
        }
        # The last matching with at least one pair, and the labels that it refers to.
        for name in KEPT:
            kind = torch.float32 if name.endswith("score") else torch.int64
            self.register_buffer(name, torch.empty(0, dtype=kind))
        for name in KEPT_LABELS:
            self.register_buffer(name, torch.empty(0, dtype=torch.int64))

    def match(self, epoch: Epoch, *, first: int = 1) -> tuple[Assignment, dict[str, float]]:
        matched = dictionary_graph_matching(
            epoch.day.centroids,
            epoch.night.centroids,
            progress=self._progress(epoch, first),
            previous=self._previous(epoch),
            **self.options,  # type: ignore[arg-type]
        )
        assignment = matched.assignment
        if len(assignment.pairs()) > 0:
            for name in KEPT:
                self._keep(name, getattr(assignment, name))
            for name, part in zip(KEPT_LABELS, (epoch.day, epoch.night)):
                self._keep(name, part.labels)
        scores = assignment.day_score[assignment.day_to_night >= 0]
        return assignment, {
            "edges": float(matched.num_edges),
            "threshold": matched.threshold,
            "best_similarity": matched.best_similarity,
            "mean_score": float(scores.mean()) if len(scores) else 0.0,
        }

    def _keep(self, name: str, value: Tensor) -> None:
        setattr(self, name, value.to(self.day_labels.device).clone())

    def _progress(self, epoch: Epoch, first: int) -> float:
        """T_epo of Eq. 6 with epochs counted from 0, as in the reading ``e = 0 .. max - 1``."""
        first = first if self.progress == "stage" else 1
        if epoch.number < first:  # matched before the stage has begun
            return 0.0
        return (epoch.number - first) / (epoch.last - first + 1)

    def _previous(self, epoch: Epoch) -> Assignment | None:
        if self.on_empty != "keep_last" or len(self.day_labels) == 0:
            return None
        return carried_assignment(
            Assignment(*(getattr(self, name).cpu() for name in KEPT)),
            old_labels_day=self.day_labels.cpu(),
            new_labels_day=epoch.day.labels,
            old_labels_night=self.night_labels.cpu(),
            new_labels_night=epoch.night.labels,
            num_day=epoch.day.num_clusters,
            num_night=epoch.night.num_clusters,
        )
