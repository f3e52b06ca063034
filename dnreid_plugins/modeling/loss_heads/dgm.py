"""Dictionary-guided graph matching: contrast with the matched cluster of the other domain (CIA Eq. 4-9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...functional.carry import carried_assignment
from ...functional.contrast import mutual_mapping_loss
from ...functional.dictionary import Scoring
from ...functional.matching import EmptyGraphPolicy, dictionary_graph_matching
from ...functional.types import Assignment, Domain, EpochClusters
from ..batch import BatchFeatures
from ..memory import PrototypeMemory
from .base import LOSS_HEAD_REGISTRY, LossHead


def cross_domain_contrast(
    batch: BatchFeatures,
    memory: PrototypeMemory,
    assignment: Assignment,
    domain: Domain,
    *,
    temperature: float,
) -> Tensor:
    """`mutual_mapping_loss` of the batch's ``domain`` part against the other domain's live rows."""
    part = batch.of(domain)
    partner, score = assignment.partner(domain)
    rows = memory.cluster_rows(domain.other)
    return mutual_mapping_loss(
        part.unit,
        part.targets,
        partner.to(part.targets),
        score.to(rows),
        rows,
        temperature=temperature,
    )


@LOSS_HEAD_REGISTRY.register()
class DGM(LossHead):
    """Matches once per epoch on the epoch-start centroids (U7), then adds ``L_d2n + L_n2d``.

    Args:
        weight: see `LossHead`; the paper trains it from epoch 51 on with 0.3.
        temperature: of Eq. 8.
        scoring: how the dictionary scores a pair (Table 4): ``continuous``, ``discrete``, ``fixed``, ``direct``.
        alpha, similarity_threshold: of Eq. 5.
        threshold_start, threshold_final: of the ramp, Eq. 6.
        progress: ``"global"`` counts T_epo over the whole run, ``"stage"`` from the first epoch in which the weight
            is above 0; it is 0 before that (U2).
        penalty: cost of a pair that is no edge, G_p of Eq. 7 (U8).
        on_empty: ``"skip"``, ``"keep_last"`` or ``"cap"`` when no pair is an edge. Kept is the last matching that
            had a pair, also across epochs in which a domain has no cluster at all.
        match_always: match also in epochs in which the weight is 0, for whoever uses a matching: the class factor
            of `MAA` (U22), the groups of `MarginMMD`, the sampler of ``DATALOADER.PAIRED``.
        second_round: match the clusters left over once more (U9).
        update_other: also move the other domain's rows by the matched features, after the step (U6).
    """

    def __init__(
        self,
        *,
        weight: Sequence[Sequence[float]] = ((51, 0.3),),
        temperature: float = 0.05,
        scoring: Scoring = "continuous",
        alpha: float = 0.2,
        similarity_threshold: float = 0.5,
        threshold_start: float = 0.7,
        threshold_final: float = 1.15,
        progress: str = "global",
        penalty: float = 1.0,
        on_empty: EmptyGraphPolicy = "skip",
        match_always: bool = False,
        second_round: bool = False,
        update_other: bool = False,
    ) -> None:
        super().__init__(weight=weight)
        if progress not in ("global", "stage"):
            raise ValueError(f"MODEL.LOSSES.DGM.PROGRESS is {progress!r}; it is 'global' or 'stage'.")
        self.temperature = temperature
        self.progress = progress
        self.begins_always = match_always
        self.update_other = update_other
        self._matching: dict[str, Any] = {
            "scoring": scoring,
            "alpha": alpha,
            "similarity_threshold": similarity_threshold,
            "threshold_start": threshold_start,
            "threshold_final": threshold_final,
            "penalty": penalty,
            "on_empty": on_empty,
            "second_round": second_round,
        }
        # The last matching with a pair in it, and the day and night labels that it speaks of.
        self._last: tuple[Assignment, Tensor, Tensor] | None = None

    def begin_epoch(self, clusters: EpochClusters, memory: PrototypeMemory) -> dict[str, float]:
        matched = dictionary_graph_matching(
            clusters.day.centroids,
            clusters.night.centroids,
            progress=self._progress(clusters),
            previous=self._previous(clusters),
            **self._matching,
        )
        self.assignment = matched.assignment
        if len(self.assignment.pairs()) > 0:
            self._last = (self.assignment, clusters.day.labels, clusters.night.labels)
        scores = self.assignment.day_score[self.assignment.day_to_night >= 0]
        return {
            "edges": float(matched.num_edges),
            "threshold": matched.threshold,
            "best_similarity": matched.best_similarity,
            "mean_score": float(scores.mean()) if len(scores) else 0.0,
        }

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        if self.assignment is None:
            return batch.features.sum() * 0.0
        day, night = (
            cross_domain_contrast(batch, memory, self.assignment, domain, temperature=self.temperature)
            for domain in Domain
        )
        return day + night

    def after_step(self, batch: BatchFeatures, memory: PrototypeMemory) -> None:
        if self.update_other and self.assignment is not None:
            for domain in Domain:
                part = batch.of(domain)
                partner = self.assignment.partner(domain)[0].to(part.targets)
                known = part.targets >= 0
                targets = torch.where(known, partner[part.targets.clamp(min=0)], -1)
                memory.update(part.unit, targets, torch.full_like(targets, int(domain.other)))

    def _progress(self, clusters: EpochClusters) -> float:
        """T_epo of Eq. 6 with epochs counted from 0, as in the reading ``e = 0 .. max - 1``."""
        first = 1
        if self.progress == "stage":
            first = next((epoch for epoch, weight in self.schedule if weight > 0), 1)
        if clusters.epoch < first:  # matched although the stage has not begun, see `match_always`
            return 0.0
        return (clusters.epoch - first) / (clusters.max_epoch - first + 1)

    def _previous(self, clusters: EpochClusters) -> Assignment | None:
        if self._last is None or self._matching["on_empty"] != "keep_last":
            return None
        assignment, labels_day, labels_night = self._last
        return carried_assignment(
            assignment,
            old_labels_day=labels_day,
            new_labels_day=clusters.day.labels,
            old_labels_night=labels_night,
            new_labels_night=clusters.night.labels,
            num_day=clusters.day.num_clusters,
            num_night=clusters.night.num_clusters,
        )

    def carry_over(self) -> dict[str, Any]:
        if self._last is None:
            return {}
        assignment, *labels = self._last
        return {"assignment": vars(assignment).copy(), "labels": labels}

    def load_carry_over(self, state: dict[str, Any]) -> None:
        if state:
            day, night = state["labels"]
            self._last = (Assignment(**state["assignment"]), day, night)
