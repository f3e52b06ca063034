"""Density clusters of both domains together, beside those of each domain."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from ..functional.grouping import domain_balanced_means
from ..functional.neighbours.clustering import jaccard_dbscan
from ..functional.neighbours.codes import softmax_codes
from ..functional.neighbours.knn import knn_table
from ..functional.types import Epoch, TrainImages
from ..runtime.agreement import peers
from ..runtime.progress import ProgressLine
from ..runtime.sections import Count, CountOrNone, Positive, Range
from .base import Refiner, make_clusters, refiner, with_clusters

logger = logging.getLogger(__name__)


@refiner
class JointClusters(Refiner):
    """Adds the clusters "joint": all images clustered as one set. Those of each domain stay as they are.

    `Epoch.mixed` says which of them hold images of both domains.

    Args:
        start: First epoch in which it works.
        last: Last epoch in which it works; 0 = the run's last.
        k1: Neighbours of the k-reciprocal encoding, of both domains together.
        k2: Neighbours of the local query expansion.
        eps: Largest Jaccard distance between neighbours of one cluster.
        min_samples: Neighbours (the image itself included) that make an image a core of a cluster.
        balanced: Query expansion and centroids give either domain half of the weight, however many images it has.
        codes: What is clustered: the features ("none"), or each image's softmax over the day centroids next to that
            over the night centroids ("softmax").
        temperature: Of that softmax; the released factor 20 is 1 / 0.05.
    """

    makes = ("joint",)

    def __init__(
        self,
        *,
        start: Count = 1,
        last: CountOrNone = 0,
        k1: Count = 30,
        k2: Count = 6,
        eps: Annotated[float, Range(0, 1, above=True)] = 0.6,
        min_samples: Count = 4,
        balanced: bool = False,
        codes: Literal["none", "softmax"] = "none",
        temperature: Positive = 0.05,
    ) -> None:
        self.start, self.last = start, last
        self.k1, self.k2, self.eps, self.min_samples = k1, k2, eps, min_samples
        self.balanced, self.codes, self.temperature = balanced, codes, temperature

    def __call__(self, epoch: Epoch, features: Tensor, images: TrainImages) -> Epoch:
        rows = features
        if self.codes == "softmax":
            centroids = [epoch.day.centroids, epoch.night.centroids]
            rows = softmax_codes(features, centroids, temperature=self.temperature)
        line = ProgressLine(f"Label phase, neighbours among all {len(rows)} images")
        found = jaccard_dbscan(
            rows,
            knn=knn_table(rows, self.k1, progress=line, peers=peers()),
            k1=self.k1,
            k2=self.k2,
            eps=self.eps,
            min_samples=self.min_samples,
            domains=images.domains if self.balanced else None,
        )
        labels = torch.from_numpy(found)
        joint = make_clusters(labels, features, torch.arange(len(images)))
        if self.balanced:
            joint = replace(joint, centroids=domain_balanced_means(features, labels, images.domains))
        if joint.num_clusters == 0:
            logger.warning("None of %d images is in a joint cluster (eps %.2f).", len(rows), self.eps)
        return with_clusters(epoch, {"joint": joint})
