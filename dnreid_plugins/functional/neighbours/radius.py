"""The radius of DBSCAN without labels: of many radii, all from one graph, the one with the most clear structure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from ..cluster_quality import label_free_quality
from .clustering import TIE_TOLERANCE, Labels, dbscan_radii
from .jaccard import jaccard_graph
from .knn import Neighbours

RADII: tuple[float, ...] = tuple(round(0.3 + 0.025 * step, 3) for step in range(19))
"""0.3, 0.325 ... 0.75. Below there are hardly clusters, above they are one."""


def jaccard_dbscan_auto(
    features: NDArray[np.floating] | Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    min_samples: int = 4,
    knn: Neighbours | NDArray[np.integer] | None = None,
    radii: Sequence[float] = RADII,
) -> tuple[Labels, float]:
    """Labels ``(N,)`` as of `jaccard_dbscan` at the radius of ``radii`` that `radius_scores` prefers, and that radius.

    Equal scores: the smallest radius. No cluster at any radius: the largest one, at which every image is an outlier.

    Args:
        features, k1, k2, min_samples, knn: see `jaccard_dbscan`.
        radii: in ascending order, each in (0, 1).
    """
    graph = jaccard_graph(features, k1=k1, k2=k2, radius=radii[-1] + TIE_TOLERANCE, knn=knn)
    return dbscan_auto(graph, features, min_samples=min_samples, radii=radii)


def dbscan_auto(
    graph: sparse.csr_array,
    features: NDArray[np.floating] | Tensor,
    *,
    min_samples: int = 4,
    radii: Sequence[float] = RADII,
) -> tuple[Labels, float]:
    """`jaccard_dbscan_auto` where the graph is there already.

    Args:
        graph: `jaccard_graph` of ``features``, at least to the largest of ``radii``.
        features, min_samples, radii: see `jaccard_dbscan_auto`.
    """
    found = dbscan_radii(graph, [radius + TIE_TOLERANCE for radius in radii], min_samples=min_samples)
    if found.max(initial=-1) < 0:
        return found[-1], float(radii[-1])
    best = int(np.argmax(radius_scores(found, features)))
    return found[best], float(radii[best])


def radius_scores(labels: Labels, features: NDArray[np.floating] | Tensor) -> NDArray[np.float64]:
    """How much clear structure each labelling has: silhouette of all images x entropy of the cluster sizes.

    A small radius leaves images out, which lowers the mean silhouette (that of `label_free_quality`, an outlier's
    being 0). A large one merges clusters: those that are left are as distinct as before, but there are fewer of them,
    which lowers the entropy ``-sum p log p`` of their shares ``p`` of the clustered images. Fewer than two clusters
    have no silhouette and stand below all others, none below one.

    Args:
        labels: ``(R, N)`` integers, -1 = outlier.
        features: ``(N, D)``, normalised here.

    Returns:
        ``(R,)``.
    """
    scores = np.empty(len(labels))
    for place, own in enumerate(labels):
        quality = label_free_quality(own, features)
        if quality["clusters"] < 2:
            scores[place] = -np.finfo(np.float64).max if quality["clusters"] else -np.inf
            continue
        sizes = np.bincount(own[own >= 0])
        shares = sizes[sizes > 0] / sizes.sum()
        entropy = -(shares * np.log(shares)).sum()
        scores[place] = quality["silhouette"] * quality["share_clustered"] * entropy
    return scores


def k_distances(graph: sparse.csr_array, count: int) -> NDArray[np.float32]:
    """Distance of each image to its neighbour number ``count``, itself included: the radius that makes it a core.

    Args:
        graph: upper triangle of `jaccard_graph`.
        count: from 1 on.

    Returns:
        ``(N,)`` float32; 1 where the graph has fewer neighbours.
    """
    pairs = graph.tocoo()
    apart = pairs.row != pairs.col
    ends = np.concatenate([pairs.row, pairs.col[apart]])
    distances = np.concatenate([pairs.data, pairs.data[apart]])
    order = np.lexsort((distances, ends))
    starts = np.searchsorted(ends[order], np.arange(graph.shape[0] + 1))
    wanted = starts[:-1] + count - 1
    found = np.ones(graph.shape[0], dtype=np.float32)
    enough = wanted < starts[1:]
    found[enough] = distances[order][wanted[enough]]
    return found
