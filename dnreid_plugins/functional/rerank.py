"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) through the sparse Jaccard graph, on the CPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from ._retrieval import Features
from .jaccard import jaccard_graph
from .knn import Progress, as_matrix
from .ranking import Adjust

_BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


def jaccard_mixer(
    query_features: Features,
    gallery_features: Features,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    progress: Progress | None = None,
) -> Adjust:
    """A function for ``rank_metrics(adjust=...)`` that mixes the Jaccard distance into each block.

    New distance = ``weight * distance + (1 - weight) * jaccard``, as fast-reid does with ``TEST.RERANK``. The
    features are normalised first: a Jaccard distance lies in [0, 1] and would drown in unbounded distances.
    Meant for ``metric="cosine"``.

    Args:
        query_features, gallery_features: ``(Q, D)`` and ``(G, D)``.
        k1, k2, progress: see :func:`jaccard_graph`; neighbours are searched among queries and gallery.
        weight: share of the original distance, in [0, 1] (fast-reid's ``LAMBDA``).
    """
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must be in [0, 1], got {weight}; 1 leaves the distances as they are.")
    query, gallery = (
        as_matrix(query_features, "query_features"),
        as_matrix(gallery_features, "gallery_features"),
    )
    queries = query.shape[0]
    rows = torch.cat([normalize(query, dim=1), normalize(gallery.to(query.device), dim=1)])
    graph = jaccard_graph(rows, k1=k1, k2=k2, radius=_BELOW_ONE, progress=progress)[:queries, queries:]

    def mix(distances: NDArray[np.float32], start: int) -> None:
        part = graph[start : start + len(distances)]
        row = np.repeat(np.arange(len(distances)), np.diff(part.indptr))
        distances *= weight
        distances += 1 - weight
        # everything was taken as 1 apart: subtract what the kept pairs are nearer
        distances[row, part.indices] -= (1 - weight) * (1 - part.data)

    return mix
