"""Density clusters of each domain separately: k-reciprocal Jaccard distance and DBSCAN, no labels used."""

from __future__ import annotations

import logging
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from ..functional.neighbours.clustering import jaccard_dbscan
from ..functional.neighbours.knn import Neighbours, knn_table
from ..functional.neighbours.radius import jaccard_dbscan_auto
from ..functional.types import Clusters, Domain
from ..runtime.agreement import peers
from ..runtime.progress import ProgressLine
from ..runtime.sections import Count, Range, configured
from .base import (
    LABEL_SOURCE_REGISTRY,
    LabelSource,
    NothingClusteredError,
    TrainImages,
    make_clusters,
    rows_at,
    without_gaps,
)

logger = logging.getLogger(__name__)

WIDEN_STEP = 0.05
WIDEST_EPS = 0.9


@LABEL_SOURCE_REGISTRY.register()
@configured("CLUSTER")
class DomainClusters(LabelSource):
    """Day images and night images are clustered separately; images in no cluster are left out.

    K1, K2, EPS and MIN_SAMPLES: the papers do not give them (U24); these are the usual values.

    Args:
        k1: Neighbours of the k-reciprocal encoding; keep K1 below the images per identity and domain.
        k2: Neighbours of the local query expansion.
        eps: Largest Jaccard distance between neighbours of one cluster, the radius; "auto": up to 0.1
            above the one from 0.3 to 0.75 whose clusters are the most distinct in both domains, chosen anew for each
            epoch (docs/choosing-the-radius.md).
        min_samples: Neighbours (the image itself included) that make an image a core of a cluster.
        feature: Which feature is clustered and makes the prototypes: "after" the batch-norm neck, the one that is
            compared at test time, or "before" it, as some released code does (T2).
        flip: Cluster on the mean of an image's feature and its mirror image's; not given in the papers (U29).
        on_empty: A domain without any cluster: "widen" raises EPS by 0.05 at a time up to 0.9 and then skips the
            domain for the epoch, "skip" leaves the domain out at once, "stop" ends the run with an error.
    """

    def __init__(
        self,
        *,
        k1: Count = 30,
        k2: Count = 6,
        eps: Annotated[float | str, Range(0, 1, above=True, word="auto")] = 0.6,
        min_samples: Count = 4,
        feature: Literal["after", "before"] = "after",
        flip: bool = True,
        on_empty: Literal["widen", "skip", "stop"] = "widen",
    ) -> None:
        self.k1, self.k2, self.eps, self.min_samples = k1, k2, eps, min_samples
        self.feature, self.flip, self.on_empty = feature, flip, on_empty

    def __call__(self, features: Tensor, images: TrainImages, *, epoch: int) -> dict[str, Clusters]:
        places = {domain.word: torch.nonzero(images.domains == domain).flatten() for domain in Domain}
        parts = self._cluster(features, places)
        self._refuse_nothing(parts, epoch)
        return parts

    def _refuse_nothing(self, parts: dict[str, Clusters], epoch: int) -> None:
        if all(part.num_clusters == 0 for part in parts.values()):
            wider = "" if self.eps == "auto" else f"raise CLUSTER.EPS (now {self.eps}), "
            raise NothingClusteredError(
                f"No cluster in either domain at epoch {epoch}: {wider}lower CLUSTER.MIN_SAMPLES "
                f"(now {self.min_samples}) or start from better weights."
            )

    def _cluster(self, features: Tensor, places: dict[str, Tensor]) -> dict[str, Clusters]:
        """The clusters of each named set of images, which are clustered separately."""
        sets = {name: rows_at(features, indices) for name, indices in places.items()}
        # the search takes nearly all of the time, so one table is used for every radius
        found = {name: self._neighbours(own, name) for name, own in sets.items()}
        labels, radius = self._chosen(sets, found)
        return {
            name: self._part(own, found[name], labels[name], radius, places[name], name)
            for name, own in sets.items()
        }

    def _neighbours(self, own: Tensor, name: str) -> Neighbours:
        line = ProgressLine(f"Label phase, neighbours among {len(own)} {name} images")
        return knn_table(own, self.k1, progress=line, peers=peers())

    def _part(
        self, own: Tensor, found: Neighbours, labels: np.ndarray, first: float, indices: Tensor, name: str
    ) -> Clusters:
        eps = first
        wider = widened_radii(eps) if self.on_empty == "widen" else []
        while labels.max(initial=-1) < 0 and wider:
            eps = wider.pop(0)
            labels = self._labels(own, found, eps)
        if labels.max(initial=-1) < 0:
            text = f"{name}: none of {len(own)} images is in a cluster (eps {eps:.2f})"
            if self.on_empty == "stop":
                raise NothingClusteredError(f"{text}; CLUSTER.ON_EMPTY is 'stop'.")
            logger.warning("%s; the domain is left out of this epoch.", text)
        elif eps > first:
            logger.warning("%s: nothing clustered at eps %.2f, widened to %.2f.", name.upper(), first, eps)
        return make_clusters(torch.from_numpy(labels), own, indices, radius=eps)

    def _chosen(
        self, sets: dict[str, Tensor], found: dict[str, Neighbours]
    ) -> tuple[dict[str, np.ndarray], float]:
        """Labels of each set and the radius of all."""
        if not isinstance(self.eps, str):
            return {name: self._labels(own, found[name], self.eps) for name, own in sets.items()}, self.eps
        labels, radius = jaccard_dbscan_auto(
            list(sets.values()),
            k1=self.k1,
            k2=self.k2,
            min_samples=self.min_samples,
            knn=[found[name] for name in sets],
        )
        return dict(zip(sets, labels, strict=True)), radius

    def _labels(self, features: Tensor, found: Neighbours, eps: float) -> np.ndarray:
        return jaccard_dbscan(
            features, k1=self.k1, k2=self.k2, eps=eps, min_samples=self.min_samples, knn=found
        )


@LABEL_SOURCE_REGISTRY.register()
class UnionClusters(DomainClusters):
    """Both domains are clustered as one set, the clusters "joint"; a domain's clusters are what of them lies in it.

    Its section is CLUSTER.
    """

    makes = ("joint",)

    def __call__(self, features: Tensor, images: TrainImages, *, epoch: int) -> dict[str, Clusters]:
        joint = self._cluster(features, {"joint": torch.arange(len(images))})["joint"]
        self._refuse_nothing({"joint": joint}, epoch)
        parts = {}
        for domain in Domain:
            own = torch.nonzero(images.domains == domain).flatten()
            parts[domain.word] = make_clusters(without_gaps(joint.labels[own]), rows_at(features, own), own)
        return {**parts, "joint": joint}


def widened_radii(eps: float) -> list[float]:
    """The radii that the policy ``widen`` tries after ``eps``: `WIDEN_STEP` more each time, up to `WIDEST_EPS`."""
    # Steps are counted, since repeatedly adding 0.05 exceeds 0.9 by rounding.
    steps = int((WIDEST_EPS - eps) / WIDEN_STEP + 1e-9)
    return [round(eps + step * WIDEN_STEP, 9) for step in range(1, steps + 1)]
