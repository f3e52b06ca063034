"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) on the sparse Jaccard graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..neighbours.jaccard import jaccard_graph

# Two rows without a common neighbour are exactly 1 apart; the graph keeps every pair below that.
_RADIUS = float(np.nextafter(np.float32(1.0), np.float32(0.0)))


def jaccard_distances(query: Tensor, gallery: Tensor, *, k1: int, k2: int) -> npt.NDArray[np.float32]:
    """``(Q, G)`` Jaccard distances among queries and gallery together; ``k1`` above ``Q + G`` is clamped.

    Args:
        query, gallery: unit rows ``(Q, D)`` and ``(G, D)``.
        k1: neighbours of the k-reciprocal encoding.
        k2: neighbours of the local query expansion.
    """
    graph = jaccard_graph(torch.cat([query, gallery]), k1=k1, k2=k2, radius=_RADIUS).tocsr()
    block = graph[: len(query), len(query) :].tocoo()
    distances = np.ones((len(query), len(gallery)), dtype=np.float32)
    distances[block.row, block.col] = block.data
    return distances
