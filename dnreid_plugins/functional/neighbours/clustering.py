"""Pseudo labels: DBSCAN on k-reciprocal Jaccard distances, without ever building an N x N matrix."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .._jit import Array, jit
from ._product import product_rate
from .jaccard import jaccard_graph
from .knn import BLOCK, SPARE, Neighbours

TIE_TOLERANCE = 1e-6
"""Added to ``eps``. Two images that share j of their k2 expansion rows and nothing else are exactly
``1 - j / (2 * k2 - j)`` apart: 0.5 for j = 4 of 6. At such a distance rounding alone would decide, and the public
implementations differ from each other; here a tie always counts as within ``eps``."""

Labels = NDArray[np.int64]


def jaccard_dbscan(
    features: NDArray[np.floating] | Tensor,
    *,
    k1: int = 30,
    k2: int = 6,
    eps: float = 0.6,
    min_samples: int = 4,
    domains: NDArray[np.integer] | Tensor | None = None,
    knn: Neighbours | NDArray[np.integer] | None = None,
) -> Labels:
    """Pseudo labels of ``(N, D)`` features: ``(N,)`` int64, clusters ``0 .. C-1``, -1 = outlier.

    For the same k-NN table the labels are, element by element, those of fast-reid's
    ``compute_jaccard_distance`` followed by scikit-learn's ``DBSCAN(metric="precomputed")``, under one stated
    rule: a pair is within ``eps`` when its distance is at most ``eps + 1e-6`` (:data:`TIE_TOLERANCE`).

    Args:
        features: NumPy or torch, used as given.
        k1, k2, domains, knn: see :func:`jaccard_graph`.
        eps: radius in (0, 1).
        min_samples: images within ``eps``, itself included, that make an image a core of a cluster.
    """
    if not (eps > 0 and eps + TIE_TOLERANCE < 1):
        raise ValueError(f"eps must be in (0, 1), got {eps}; common values are 0.3 to 0.7.")
    radius = eps + TIE_TOLERANCE
    graph = jaccard_graph(features, k1=k1, k2=k2, radius=radius, domains=domains, knn=knn)
    return dbscan_graph(graph, eps=radius, min_samples=min_samples)


def dbscan_graph(graph: sparse.csr_array, *, eps: float, min_samples: int) -> Labels:
    """DBSCAN on the upper triangle of a sparse distance matrix; absent pairs are farther than ``eps``.

    That includes the diagonal: an image without an entry there does not count itself.
    Clusters are numbered by their smallest core index, and a border image joins the lowest-numbered
    cluster that reaches it: element by element what scikit-learn returns.
    """
    labels: Labels = _dbscan(
        graph.indptr.astype(np.int64),
        graph.indices.astype(np.int32),
        graph.data,
        float(np.float32(eps)),
        min_samples,
    )
    return labels


@jit
def _root(parent: Array, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def _dbscan(indptr: Array, columns: Array, distances: Array, eps: float, min_samples: int) -> Array:
    num = indptr.shape[0] - 1
    degree = np.zeros(num, dtype=np.int64)
    for i in range(num):
        for e in range(indptr[i], indptr[i + 1]):
            if distances[e] <= eps:
                degree[i] += 1
                degree[columns[e]] += columns[e] != i
    parent = np.arange(num)
    for i in range(num):
        if degree[i] < min_samples:
            continue
        for e in range(indptr[i], indptr[i + 1]):
            j = columns[e]
            if distances[e] <= eps and degree[j] >= min_samples:
                a, b = _root(parent, i), _root(parent, j)
                parent[max(a, b)] = min(a, b)  # the root is the smallest core of its cluster
    labels = np.full(num, -1, dtype=np.int64)
    clusters = 0
    for i in range(num):
        if degree[i] >= min_samples:
            root = _root(parent, i)
            if root == i:
                labels[i] = clusters
                clusters += 1
            else:
                labels[i] = labels[root]
    for i in range(num):
        for e in range(indptr[i], indptr[i + 1]):
            j = columns[e]
            if distances[e] <= eps and (degree[i] >= min_samples) != (degree[j] >= min_samples):
                core, border = (i, j) if degree[i] >= min_samples else (j, i)
                if labels[border] < 0 or labels[core] < labels[border]:
                    labels[border] = labels[core]
    return labels


class LabelPhaseEstimate(NamedTuple):
    """Memory and time that computing pseudo labels needs on this machine, without the features themselves."""

    bytes: int
    seconds: float


def estimate_label_phase(
    num_images: int, dim: int, *, k1: int = 30, rate: float | None = None
) -> LabelPhaseEstimate:
    """Memory and time of :func:`jaccard_dbscan` on the CPU, for a line in the log before it starts.

    Args:
        num_images, dim: N and D.
        k1: as given to the search.
        rate: float32 operations per second of a matrix product; measured in a few milliseconds if ``None``.

    Returns:
        The N^2 D operations of the symmetric search at half that rate, since the search reads every product
        once more for its candidates, and 25 microseconds per image for all that follows; peak memory in bytes, either
        of the search (candidates and product blocks) or of the graph (about 300 sparse entries per image
        with k1 = 30).
    """
    rate = product_rate() if rate is None else rate
    seconds = 2 * num_images * (num_images + BLOCK) * dim / rate + 2.5e-5 * num_images
    search = num_images * (k1 + SPARE) * 20 + 3 * 4 * min(BLOCK, num_images) ** 2
    graph = num_images * k1 * 8 + num_images * 10 * k1 * 2 * 8
    return LabelPhaseEstimate(max(search, graph), seconds)
