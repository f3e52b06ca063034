"""Contrast under soft targets and weights that neighbours give, within a domain and across (NULC)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...functional.losses.contrast import mapped_targets
from ...functional.losses.soft_contrast import soft_nce
from ...functional.neighbours.knn import Neighbours, knn_across, knn_table
from ...functional.neighbours.soft_targets import SoftTargets, neighbour_soft_targets
from ...functional.types import Clusters, Domain, Epoch
from ...runtime.agreement import peers
from ...runtime.sections import Count, NotNegative, Positive, Share
from ..batch import BatchFeatures
from ..matchers.progressive import ProgressiveMatcher
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule, contrasted_domains


@LOSS_HEAD_REGISTRY.register()
class NeighbourTargets(LossHead):
    """Own-domain contrast of both domains, and contrast of one domain with the matched clusters of the other.

    The targets are made from the features of the epoch's start and hold for the whole epoch.

    Args:
        weight: Piecewise constant over the epochs; in these epochs ClusterNCE has weight 0.
        matcher: Which clusters are matched: the label of an image in the other domain.
        neighbours: Nearest images of an image that are asked, of its own domain (itself included) and of the other.
        keep: Share of the label in a target; the rest is the clusters of the neighbours.
        sharpness: How fast the weight of an image falls with the share of neighbours that disagree with its label.
        cross_weight: Of the contrast across the domains.
        temperature: Of both contrasts.
        alternate: Odd epochs contrast night images with day rows, even epochs the reverse; False: both always.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((51, 1.0),),
        matcher: ProgressiveMatcher,
        neighbours: Count = 30,
        keep: Share = 0.7,
        sharpness: NotNegative = 10.0,
        cross_weight: NotNegative = 3.0,
        temperature: Positive = 0.05,
        alternate: bool = True,
    ) -> None:
        super().__init__(weight=weight, matcher=matcher)
        self.neighbours, self.keep, self.sharpness = neighbours, keep, sharpness
        self.cross_weight, self.temperature, self.alternate = cross_weight, temperature, alternate
        # Of the running epoch, by (domain of the images, domain of the clusters): place i is image i of the
        # canonical list. Made from the epoch alone, so no state.
        self.targets: dict[tuple[Domain, Domain], SoftTargets] = {}

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        device = parts.memory.rows(Domain.DAY).device
        matching = epoch.matchings[self.name]
        total = len(epoch.day.labels) + len(epoch.night.labels)
        self.targets, figures = {}, {}
        for domain in Domain:
            own, other = epoch[domain], epoch[domain.other]
            wanted = [(domain, own, own.labels, knn_table(own.features, self.neighbours, peers=peers()))]
            if domain in contrasted_domains(epoch.number, alternate=self.alternate):
                mapped = mapped_targets(own.labels, matching.partner(domain)[0])
                found = knn_across(own.features, other.features, self.neighbours, peers=peers())
                wanted.append((domain.other, other, mapped, found))
            for where, clusters, labels, near in wanted:
                soft = self._soft(clusters, labels, near)
                name = "own" if where == domain else "cross"
                figures[f"{domain.word}/{name}_weight"] = float(
                    soft.weight.sum() / max(int((labels >= 0).sum()), 1)
                )
                self.targets[domain, where] = _spread(soft, own.indices, total).to(device)
        return figures

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        loss = batch.features.sum() * 0.0
        for (domain, where), targets in self.targets.items():
            part = batch.of(domain)
            crosses = where != domain
            rows = parts.memory.cluster_rows(where) if crosses else parts.memory.rows(where)
            term = soft_nce(part.unit, targets.where(part.indices), rows, temperature=self.temperature)
            loss = loss + (self.cross_weight if crosses else 1.0) * term
        return loss

    def _soft(self, clusters: Clusters, labels: Tensor, near: Neighbours) -> SoftTargets:
        sizes = torch.bincount(clusters.labels[clusters.labels >= 0], minlength=clusters.num_clusters)
        theirs = clusters.labels[torch.from_numpy(near.indices).long()]
        return neighbour_soft_targets(theirs, sizes, labels, keep=self.keep, sharpness=self.sharpness)


def _spread(soft: SoftTargets, indices: Tensor, total: int) -> SoftTargets:
    """The targets of the images ``indices`` at their places in a list of ``total``; others have no label."""
    width = soft.clusters.shape[1]
    result = SoftTargets(torch.full((total, width), -1), torch.zeros(total, width), torch.zeros(total))
    result.clusters[indices], result.shares[indices] = soft.clusters, soft.shares
    result.weight[indices] = soft.weight
    return result
