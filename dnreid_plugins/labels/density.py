"""Images change to the cluster whose dense part they are nearest to."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from ..functional.neighbours.density import density_relabel
from ..functional.types import Clusters, Domain, Epoch
from ..runtime.sections import Count, Range
from .base import Refiner, TrainImages, make_clusters, refiner, with_clusters


@refiner
class DensityRelabel(Refiner):
    """In each domain every clustered image gets the label of the nearest prototype, see `density_relabel`.

    A cluster that loses all of its images disappears, and the others are numbered anew. Outliers stay outliers.

    Args:
        start: First epoch in which it works, from 1.
        top: Densest images of a cluster that make its prototype.
        threshold: Cosine above which two images of a cluster count as near.
        as_released: Prototypes of the memory and of the matching stay the means of the clusters before relabelling.
    """

    def __init__(
        self,
        *,
        start: Count = 1,
        top: Count = 20,
        threshold: Annotated[float, Range(-1, 1)] = 0.5,
        as_released: bool = False,
    ) -> None:
        self.start, self.top, self.threshold, self.as_released = start, top, threshold, as_released

    def __call__(self, epoch: Epoch, features: Tensor, images: TrainImages) -> Epoch:
        return with_clusters(epoch, {domain.word: self._relabelled(epoch[domain]) for domain in Domain})

    def _relabelled(self, part: Clusters) -> Clusters:
        labels = density_relabel(part.features, part.labels, self.top, self.threshold)
        left, numbers = torch.unique(labels[labels >= 0], return_inverse=True)
        labels[labels >= 0] = numbers
        clusters = make_clusters(labels, part.features, part.indices)
        return replace(clusters, centroids=part.centroids[left]) if self.as_released else clusters
