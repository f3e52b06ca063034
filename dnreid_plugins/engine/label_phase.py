"""From features to the clusters of an epoch, with named policies for the cases that go wrong."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.progress import ProgressLine
from ..functional.cluster_quality import cluster_quality
from ..functional.clustering import jaccard_dbscan
from ..functional.knn import Neighbours, knn_table
from ..functional.types import Domain, DomainClusters, EpochClusters

logger = logging.getLogger(__name__)

WIDEN_STEP = 0.05
WIDEST_EPS = 0.9


class NothingClusteredError(RuntimeError):
    """Neither domain, or a domain under the policy ``stop``, has a single cluster."""


@dataclass(frozen=True)
class Clusterer:
    """Jaccard + DBSCAN per domain; the fields are the keys of the config section ``CLUSTER``."""

    k1: int = 30
    k2: int = 6
    eps: float = 0.6
    min_samples: int = 4
    on_empty: str = "widen"

    def __post_init__(self) -> None:
        if self.on_empty not in ("widen", "skip", "stop"):
            raise ValueError(f"CLUSTER.ON_EMPTY is {self.on_empty!r}; it is 'widen', 'skip' or 'stop'.")

    def __call__(self, features: Tensor, domains: Tensor, *, epoch: int, max_epoch: int) -> EpochClusters:
        """``features`` (N, D) and ``domains`` (N,) in canonical order; ``epoch`` counts from 1.

        Raises:
            NothingClusteredError: see `on_empty`; also when both domains come out empty.
        """
        parts = [self._cluster(features, domains, domain) for domain in Domain]
        if all(part.num_clusters == 0 for part in parts):
            raise NothingClusteredError(
                f"No cluster in either domain at epoch {epoch}: raise CLUSTER.EPS (now {self.eps}), lower "
                f"CLUSTER.MIN_SAMPLES (now {self.min_samples}) or start from better weights."
            )
        return EpochClusters(parts[0], parts[1], epoch, max_epoch)

    def _cluster(self, features: Tensor, domains: Tensor, domain: Domain) -> DomainClusters:
        indices = torch.nonzero(domains == domain).flatten()
        own = features[indices]
        name = domain.name.lower()
        # nearly all of the time goes into the search, so one table serves every radius
        line = ProgressLine(f"Label phase, neighbours among {len(own)} {name} images")
        found = knn_table(own, self.k1, progress=line)
        labels, eps = self._labels(own, found, self.eps), self.eps
        wider = widened_radii(self.eps) if self.on_empty == "widen" else []
        while labels.max(initial=-1) < 0 and wider:
            eps = wider.pop(0)
            labels = self._labels(own, found, eps)
        if labels.max(initial=-1) < 0:
            text = f"{name}: none of {len(own)} images is in a cluster (eps {eps:.2f})"
            if self.on_empty == "stop":
                raise NothingClusteredError(f"{text}; CLUSTER.ON_EMPTY is 'stop'.")
            logger.warning("%s; the domain is left out of this epoch.", text)
        elif eps > self.eps:
            logger.warning("%s: nothing clustered at eps %.2f, widened to %.2f.", domain.name, self.eps, eps)
        return make_clusters(torch.from_numpy(labels), own, indices)

    def _labels(self, features: Tensor, found: Neighbours, eps: float) -> np.ndarray:
        return jaccard_dbscan(
            features, k1=self.k1, k2=self.k2, eps=eps, min_samples=self.min_samples, knn=found
        )


def widened_radii(eps: float) -> list[float]:
    """What the policy ``widen`` tries after ``eps``: `WIDEN_STEP` more each time, `WIDEST_EPS` included."""
    # Steps are counted, since a sum of 0.05 passes 0.9 by its rounding.
    steps = int((WIDEST_EPS - eps) / WIDEN_STEP + 1e-9)
    return [round(eps + step * WIDEN_STEP, 9) for step in range(1, steps + 1)]


def make_clusters(labels: Tensor, features: Tensor, indices: Tensor) -> DomainClusters:
    """Centroids for given labels: the normalised mean of each cluster's features (CIA Eq. 1)."""
    count = int(labels.max()) + 1 if len(labels) else 0
    sums = torch.zeros(count, features.shape[1])
    kept = labels >= 0
    sums.index_add_(0, labels[kept], features[kept].float())
    return DomainClusters(labels, features, F.normalize(sums, dim=1), indices)


def describe(clusters: EpochClusters, true_ids: np.ndarray | None = None) -> dict[str, float]:
    """Figures of the health line. Keys that start with ``true/`` need labels and are for diagnosis only."""
    figures: dict[str, float] = {}
    for domain in Domain:
        part, name = clusters[domain], domain.name.lower()
        sizes = torch.bincount(part.labels[part.labels >= 0], minlength=1)
        figures[f"{name}/clusters"] = float(part.num_clusters)
        figures[f"{name}/clustered"] = 100.0 * float((part.labels >= 0).float().mean())
        figures[f"{name}/largest"] = float(sizes.max())
        if true_ids is not None:
            quality = cluster_quality(part.labels.numpy(), true_ids[part.indices.numpy()])
            figures.update({f"true/{name}/{key}": value for key, value in quality.items()})
    return figures
