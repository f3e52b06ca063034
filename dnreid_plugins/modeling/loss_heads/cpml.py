"""Cross-domain prototype matching of Bridging Day and Night (Eq. 10-13), with gradient."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from ...functional.losses.cpml import batch_centroid_cpml, instance_cpml, released_cpml, row_cpml
from ...functional.matching.mutual_topk import NeighbourPartition
from ...functional.types import Domain, Epoch
from ...runtime.sections import Positive
from ..batch import BatchFeatures
from ..matchers.mutual import MutualNeighbours
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule

CLASSIFIER = "PrototypeClassifier"


@LOSS_HEAD_REGISTRY.register()
class CPML(LossHead):
    """Attracts mutual neighbours of the other domain, repels one-sided ones; neighbours are found once per epoch.

    Args:
        weight: Piecewise constant over the epochs.
        variant: What is compared with the other domain's memory rows: the batch's images ("instance") or their mean
            per cluster ("batch_centroid"). "classifier": the classifiers' rows of both domains, which trains those
            only. "as_released": memory rows, which trains nothing (T1).
        matcher: Which clusters are neighbours.
        temperature: Divides the cosine.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 1.0),),
        variant: Literal["instance", "batch_centroid", "classifier", "as_released"] = "instance",
        matcher: MutualNeighbours,
        temperature: Positive = 0.07,
    ) -> None:
        super().__init__(weight=weight, matcher=matcher)
        self.neighbours = (matcher,)  # in a tuple, since it is already registered as the head's matcher
        self.variant = variant
        self.temperature = temperature
        self.partition: NeighbourPartition | None = None

    @classmethod
    def from_config(cls, cfg: Any) -> CPML:
        head = super().from_config(cfg)
        assert isinstance(head, CPML)
        if head.variant == "classifier" and CLASSIFIER not in cfg.MODEL.LOSSES.NAME:
            raise ValueError(
                f"MODEL.LOSSES.CPML.VARIANT is 'classifier', which needs {CLASSIFIER} in MODEL.LOSSES.NAME."
            )
        return head

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        found, device = self.neighbours[0].partition, parts.memory.rows(Domain.DAY).device
        self.partition = None if found is None else NeighbourPartition(*(mask.to(device) for mask in found))
        return {}

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        nothing = batch.features.sum() * 0.0
        if self.partition is None:
            return nothing
        rows = parts.memory.cluster_rows(Domain.DAY), parts.memory.cluster_rows(Domain.NIGHT)
        if self.variant == "as_released":
            return released_cpml(*rows, self.partition, temperature=self.temperature)
        if self.variant == "classifier":
            layers: Any = parts.losses[CLASSIFIER]
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
