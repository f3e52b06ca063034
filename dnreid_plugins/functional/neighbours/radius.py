"""The radius of DBSCAN without labels: of many radii, all from one graph, one above that of the clearest structure."""

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

ABOVE = 0.1
"""How far above the radius of the purest clusters networks train best (measured: docs/choosing-the-radius.md)."""

LEAST_STRUCTURE = 0.5
"""The share of the best score that has to be left: a little further all images may fall into one cluster."""


def jaccard_dbscan_auto(
    sets: Sequence[NDArray[np.floating] | Tensor],
    *,
    k1: int = 30,
    k2: int = 6,
    min_samples: int = 4,
    knn: Sequence[Neighbours | NDArray[np.integer] | None] | None = None,
    radii: Sequence[float] = RADII,
) -> tuple[list[Labels], float]:
    """Labels ``(N,)`` of each set as of `jaccard_dbscan`, at one radius of ``radii`` for all.

    The score of a radius is the sum of the `radius_scores` of the sets that have two clusters at some radius. Taken is
    the largest radius that is at most `ABOVE` wider than the one with the best score (of equal ones the smallest) and
    leaves each set at least `LEAST_STRUCTURE` of its score there. Where no radius makes two clusters in any set, it is
    the smallest with one cluster; no cluster in any set at any radius: the largest, at which every image is an
    outlier.

    Args:
        sets: features ``(N, D)`` of each set that is clustered by itself, such as the day and the night images.
        k1, k2, min_samples: see `jaccard_dbscan`.
        knn: for each set what `jaccard_dbscan` takes.
        radii: in ascending order, each in (0, 1).
    """
    farthest = radii[-1] + TIE_TOLERANCE
    tables = knn or [None] * len(sets)
    graphs = [
        jaccard_graph(features, k1=k1, k2=k2, radius=farthest, knn=table)
        for features, table in zip(sets, tables, strict=True)
    ]
    return dbscan_auto(graphs, sets, min_samples=min_samples, radii=radii)


def dbscan_auto(
    graphs: Sequence[sparse.csr_array],
    sets: Sequence[NDArray[np.floating] | Tensor],
    *,
    min_samples: int = 4,
    radii: Sequence[float] = RADII,
) -> tuple[list[Labels], float]:
    """`jaccard_dbscan_auto` where the graphs are there already.

    Args:
        graphs: `jaccard_graph` of each set, at least to the largest of ``radii``.
        sets, min_samples, radii: see `jaccard_dbscan_auto`.
    """
    widened = [radius + TIE_TOLERANCE for radius in radii]
    found = [dbscan_radii(graph, widened, min_samples=min_samples) for graph in graphs]
    if all(labels.max(initial=-1) < 0 for labels in found):
        place = len(radii) - 1
    else:
        place = _chosen(np.stack([*map(radius_scores, found, sets)]), np.asarray(radii))
    return [labels[place] for labels in found], float(radii[place])


def _chosen(scores: NDArray[np.float64], radii: NDArray[np.float64]) -> int:
    """Place of the radius to take, see `jaccard_dbscan_auto`; ``scores`` is ``(sets, R)``."""
    able = scores[scores.max(axis=1) > 0]
    best = int((able if len(able) else scores).sum(axis=0).argmax())
    deciding = able[able[:, best] > 0]
    if not len(deciding):
        return best
    near = radii <= radii[best] + ABOVE + TIE_TOLERANCE
    structured = (deciding >= LEAST_STRUCTURE * deciding[:, [best]]).all(axis=0)
    return int(np.flatnonzero(near & structured)[-1])


def radius_scores(labels: Labels, features: NDArray[np.floating] | Tensor) -> NDArray[np.float64]:
    """How much clear structure each labelling has, beside the others: 1 for the one with the most.

    Clear structure is the silhouette of all images times the entropy of the cluster sizes. A small radius leaves
    images out, which lowers the mean silhouette (that of `label_free_quality`, an outlier's being 0). A large one
    merges clusters: those that are left are as distinct as before, but there are fewer of them, which lowers the
    entropy ``-sum p log p`` of their shares ``p`` of the clustered images. The values are divided by the largest of
    their sizes, so that each set has the same say in a sum. One cluster has no silhouette: -2. No cluster: -3.

    Args:
        labels: ``(R, N)`` integers, -1 = outlier.
        features: ``(N, D)``, normalised here.

    Returns:
        ``(R,)`` in [-1, 1], or -2 or -3.
    """
    scores = np.zeros(len(labels))
    few = np.zeros(len(labels))
    for place, own in enumerate(labels):
        quality = label_free_quality(own, features)
        if quality["clusters"] < 2:
            few[place] = -2 if quality["clusters"] else -3
            continue
        sizes = np.bincount(own[own >= 0])
        shares = sizes[sizes > 0] / sizes.sum()
        entropy = -(shares * np.log(shares)).sum()
        scores[place] = quality["silhouette"] * quality["share_clustered"] * entropy
    return scores / max(np.abs(scores).max(initial=0), np.finfo(np.float64).tiny) + few


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
