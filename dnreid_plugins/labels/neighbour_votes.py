"""Labels of one domain from the votes of neighbours: in the other domain, then among its own images."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ..functional.neighbours.knn import knn_across, knn_table
from ..functional.neighbours.votes import majority_smooth, transfer_by_vote
from ..functional.types import Clusters, Domain, Epoch, TrainImages
from ..runtime.agreement import peers
from ..runtime.progress import ProgressLine
from ..runtime.sections import Count
from .base import Refiner, make_clusters, refiner, with_clusters, without_gaps

logger = logging.getLogger(__name__)

SHARED = "shared"


@refiner
class TransferByVote(Refiner):
    """The images of one domain take the labels that their nearest images of the other domain have most.

    It adds the clusters "shared": the other domain's numbers and centroids, for images of both domains. The domain's
    own clusters become the same groups, numbered without gaps. Images whose neighbours are mostly outliers become
    outliers. If the other domain has no cluster, labels stay as they are and "shared" is empty.

    Args:
        start: First epoch in which it works.
        relabels: The domain whose labels are replaced: "day" or "night".
        neighbours: Nearest images of the other domain that vote.
        weights: Of a vote: "softmax" of the cosines at temperature 1, which is nearly equal, or "count".
    """

    makes = (SHARED,)

    def __init__(
        self,
        *,
        start: Count = 1,
        relabels: Literal["day", "night"] = "day",
        neighbours: Count = 10,
        weights: Literal["softmax", "count"] = "softmax",
    ) -> None:
        self.start, self.domain = start, Domain.named(relabels)
        self.neighbours = neighbours
        self.weights: Literal["softmax", "count"] = weights

    def __call__(self, epoch: Epoch, features: Tensor, images: TrainImages) -> Epoch:
        part, voters = epoch[self.domain], epoch[self.domain.other]
        labels = torch.full((len(images),), -1, dtype=torch.int64)
        shared = Clusters(labels, features, voters.centroids, torch.arange(len(images)))
        if voters.num_clusters == 0:
            text = "No %s cluster, so the %s images keep their labels."
            logger.warning(text, self.domain.other.word, self.domain.word)
            return with_clusters(epoch, {SHARED: shared})
        line = ProgressLine(f"Label phase, votes for {len(part.labels)} {self.domain.word} images")
        found = knn_across(part.features, voters.features, self.neighbours, progress=line, peers=peers())
        assert found.distances is not None
        voted = transfer_by_vote(
            torch.from_numpy(found.indices).long(),
            1 - torch.from_numpy(found.distances) / 2,
            voters.labels,
            weights=self.weights,
        )
        labels[voters.indices] = voters.labels
        return _relabelled(with_clusters(epoch, {SHARED: shared}), self.domain, voted)


@refiner
class MajoritySmooth(Refiner):
    """Each image of a domain takes the label that most of its nearest images of the same domain have.

    After a transfer of labels it smooths the transferred ones, and with them the clusters "shared".

    Args:
        start: First epoch in which it works.
        smooths: The domain whose labels it changes: "day" or "night".
        neighbours: Nearest images that vote, the image itself included.
    """

    def __init__(
        self, *, start: Count = 1, smooths: Literal["day", "night"] = "day", neighbours: Count = 10
    ) -> None:
        self.start, self.domain, self.neighbours = start, Domain.named(smooths), neighbours

    def __call__(self, epoch: Epoch, features: Tensor, images: TrainImages) -> Epoch:
        part = epoch[self.domain]
        shared = SHARED in epoch.clusters and epoch.clusters[SHARED].num_clusters > 0
        labels = epoch.targets(SHARED, part.indices) if shared else part.labels
        line = ProgressLine(f"Label phase, votes among {len(part.labels)} {self.domain.word} images")
        near = knn_table(part.features, self.neighbours, progress=line, peers=peers()).indices
        smooth = majority_smooth(torch.from_numpy(near).long(), labels)
        if shared:
            return _relabelled(epoch, self.domain, smooth)
        own = make_clusters(without_gaps(smooth), part.features, part.indices)
        return with_clusters(epoch, {self.domain.word: own})


def _relabelled(epoch: Epoch, domain: Domain, labels: Tensor) -> Epoch:
    """The epoch with other labels, in the numbers of the clusters "shared", for the images of one domain."""
    part, shared = epoch[domain], epoch.clusters[SHARED]
    everyone = shared.labels.clone()
    everyone[part.indices] = labels
    kept = torch.unique(everyone[everyone >= 0])
    return with_clusters(
        epoch,
        {
            domain.word: make_clusters(without_gaps(labels), part.features, part.indices),
            SHARED: replace(shared, labels=without_gaps(everyone), centroids=shared.centroids[kept]),
        },
    )
