"""Cross-domain prototype matching of Bridging Day and Night (Eq. 10-13), with gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ...functional.cpml import batch_centroid_cpml, instance_cpml, released_cpml, row_cpml
from ...functional.mutual_topk import NeighbourPartition, mutual_topk_partition
from ...functional.types import Assignment, Domain, EpochClusters
from ..batch import BatchFeatures
from ..memory import PrototypeMemory
from .base import LOSS_HEAD_REGISTRY, LossHead
from .prototype_classifier import PrototypeClassifier

VARIANTS = ("instance", "batch_centroid", "classifier", "as_released")


@LOSS_HEAD_REGISTRY.register()
class CPML(LossHead):
    """Pulls mutual neighbours of the other domain, pushes one-sided ones; neighbours are found once per epoch.

    Args:
        weight: see `LossHead`.
        variant: what stands against the other domain's memory rows: the batch's images (``"instance"``) or their
            mean per cluster (``"batch_centroid"``). ``"classifier"``: the classifiers' rows of both domains, which
            trains those only. ``"as_released"``: memory rows, which trains nothing (T1).
        top_k: neighbours per cluster. As many as there are clusters leave no hard negatives, and no loss.
        temperature: divides the cosine.
    """

    def __init__(
        self,
        *,
        weight: Sequence[Sequence[float]] = ((1, 1.0),),
        variant: str = "instance",
        top_k: int = 15,
        temperature: float = 0.07,
    ) -> None:
        super().__init__(weight=weight)
        if variant not in VARIANTS or top_k < 1 or not temperature > 0:
            raise ValueError(
                f"MODEL.LOSSES.CPML has VARIANT {variant!r}, TOP_K {top_k} and TEMPERATURE {temperature}; it takes "
                f"one of {VARIANTS}, at least 1 and more than 0."
            )
        self.variant = variant
        self.top_k = top_k
        self.temperature = temperature
        self.partition: NeighbourPartition | None = None
        # In a list, so that it does not become a sub-module a second time.
        self._classifier: list[PrototypeClassifier] = []

    def connect(self, heads: Mapping[str, LossHead]) -> None:
        classifier = heads.get("PrototypeClassifier")
        if isinstance(classifier, PrototypeClassifier):
            self._classifier = [classifier]
        elif self.variant == "classifier":
            raise ValueError(
                "MODEL.LOSSES.CPML.VARIANT is 'classifier', which needs PrototypeClassifier in MODEL.LOSSES.NAME."
            )

    def begin_epoch(self, clusters: EpochClusters, memory: PrototypeMemory) -> dict[str, float]:
        day, night = (memory.cluster_rows(domain) for domain in Domain)
        similarity = day @ night.T
        self.partition = mutual_topk_partition(similarity, self.top_k)
        self.assignment = nearest_positive(similarity, self.partition.positives)
        anchors = max(sum(similarity.shape), 1)
        hard = int(self.partition.hard_day.sum() + self.partition.hard_night.sum())
        return {
            "positives": 2 * float(self.partition.positives.sum()) / anchors,
            "hard_negatives": hard / anchors,
        }

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        nothing = batch.features.sum() * 0.0
        if self.partition is None:
            return nothing
        rows = memory.cluster_rows(Domain.DAY), memory.cluster_rows(Domain.NIGHT)
        if self.variant == "as_released":
            return released_cpml(*rows, self.partition, temperature=self.temperature)
        if self.variant == "classifier":
            layers = self._classifier[0]
            return nothing + row_cpml(layers.day, layers.night, self.partition, temperature=self.temperature)
        loss = instance_cpml if self.variant == "instance" else batch_centroid_cpml
        day, night = batch.of(Domain.DAY), batch.of(Domain.NIGHT)
        return loss(
            day.unit,
            day.targets,
            night.unit,
            night.targets,
            *rows,
            self.partition,
            temperature=self.temperature,
        )


def nearest_positive(similarity: Tensor, positives: Tensor) -> Assignment:
    """Each cluster's nearest mutual neighbour, for the matching precision on the health line.

    Args:
        similarity: ``(C_day, C_night)``.
        positives: boolean mask of that shape.
    """
    if similarity.numel() == 0:
        return Assignment.empty(*similarity.shape)
    masked = similarity.masked_fill(~positives, float("-inf"))
    parts = []
    for table in (masked, masked.T):
        best, partner = table.max(dim=1)
        found = torch.isfinite(best)
        parts.append((torch.where(found, partner, -1).cpu(), torch.where(found, best, 0.0).float().cpu()))
    (night, day_score), (day, night_score) = parts
    return Assignment(night, day, day_score, night_score)
