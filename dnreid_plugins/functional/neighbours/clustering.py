"""Pseudo labels: DBSCAN on k-reciprocal Jaccard distances, without ever building an N x N matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from .._jit import Array, jit
from ._candidates import ROOM, SPARE
from ._product import has_int8, product_rate
from .jaccard import jaccard_graph
from .knn import BLOCK, Neighbours

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
    """`dbscan_radii` with a single radius: labels ``(N,)`` int64."""
    labels: Labels = dbscan_radii(graph, [eps], min_samples=min_samples)[0]
    return labels


def dbscan_radii(graph: sparse.csr_array, radii: Sequence[float], *, min_samples: int) -> Labels:
    """DBSCAN at several radii on the upper triangle of a sparse distance matrix; absent pairs are farther than all.

    That includes the diagonal: an image without an entry there does not count itself.
    Clusters are numbered by their smallest core index, and a border image joins the lowest-numbered
    cluster that reaches it: element by element what scikit-learn returns at each radius. With the radius cores only
    become more and clusters only merge, so each pair is joined once, at the first radius at which it may be.

    Args:
        graph: of `jaccard_graph`, with a radius of at least the largest of ``radii``.
        radii: in ascending order.
        min_samples: images within a radius, itself included, that make an image a core.

    Returns:
        ``(R, N)`` int64; -1 = outlier.

    Raises:
        ValueError: ``radii`` do not ascend.
    """
    limits = np.asarray(radii, dtype=np.float32)
    if limits.ndim != 1 or (np.diff(limits) < 0).any():
        raise ValueError(f"radii must be a list in ascending order, got {radii}; sort it.")
    # Number of the first radius that reaches a pair; where there is none, R.
    reached = np.searchsorted(limits, graph.data, side="left").astype(np.int16)
    labels: Labels = _dbscan_radii(
        graph.indptr.astype(np.int64), graph.indices.astype(np.int32), reached, len(limits), min_samples
    )
    return labels


@jit
def _root(parent: Array, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def _first_as_core(indptr: Array, columns: Array, reached: Array, steps: int, min_samples: int) -> Array:
    """Number of the first radius at which an image is a core, ``(N,)``; ``steps`` where there is none."""
    num = indptr.shape[0] - 1
    degree = np.zeros(num, dtype=np.int64)
    first = np.full(num, steps, dtype=np.int16)
    for step in range(steps):
        for i in range(num):
            for e in range(indptr[i], indptr[i + 1]):
                if reached[e] == step:
                    degree[i] += 1
                    degree[columns[e]] += columns[e] != i
        for i in range(num):
            if degree[i] >= min_samples and first[i] == steps:
                first[i] = step
    return first


@jit
def _dbscan_radii(indptr: Array, columns: Array, reached: Array, steps: int, min_samples: int) -> Array:
    num = indptr.shape[0] - 1
    first = _first_as_core(indptr, columns, reached, steps, min_samples)
    parent = np.arange(num)
    labels = np.full((steps, num), -1, dtype=np.int64)
    for step in range(steps):
        own = labels[step]
        for i in range(num):
            for e in range(indptr[i], indptr[i + 1]):
                if max(reached[e], first[i], first[columns[e]]) == step:
                    a, b = _root(parent, i), _root(parent, columns[e])
                    parent[max(a, b)] = min(a, b)  # the root is the smallest core of its cluster
        clusters = 0
        for i in range(num):
            if first[i] <= step:
                root = _root(parent, i)
                if root == i:
                    own[i] = clusters
                    clusters += 1
                else:
                    own[i] = own[root]
        for i in range(num):
            for e in range(indptr[i], indptr[i + 1]):
                j = columns[e]
                if reached[e] <= step and (first[i] <= step) != (first[j] <= step):
                    core, border = (i, j) if first[i] <= step else (j, i)
                    if own[border] < 0 or own[core] < own[border]:
                        own[border] = own[core]
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
        The N^2 D operations of the symmetric search at that rate (at three times the rate where int8 is
        multiplied), as much again for looking at each product as 150 dimensions take, and 75 microseconds per image
        for candidates and all that follows; peak memory in bytes, either of the search (candidates, product blocks,
        int8 rows if there are any) or of the graph (about 300 sparse entries per image with k1 = 30).
    """
    rate = product_rate() if rate is None else rate
    quick = has_int8()
    each = (dim / 3 if quick else dim) + 150
    seconds = num_images * (num_images + BLOCK) * each / rate + 7.5e-5 * num_images
    blocks = (2 + torch.get_num_threads()) * 4 * min(BLOCK, num_images) ** 2
    search = num_images * ((k1 + SPARE + ROOM) * 8 + 80 + quick * dim) + blocks
    graph = num_images * k1 * 8 + num_images * 10 * k1 * 2 * 8
    return LabelPhaseEstimate(max(search, graph), seconds)
