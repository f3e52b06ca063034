"""A slow twin of the Jaccard graph: the float32 steps of fast-reid's ``compute_jaccard_distance``, to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dnreid_plugins.functional.neighbours import clustering, jaccard


@contextmanager
def reference_arithmetic() -> Iterator[None]:
    """Inside, `jaccard_graph` rounds where fast-reid does, and `jaccard_dbscan` has no rule for ties."""
    with (
        mock.patch.object(jaccard, "_softmax_weights", _weights),
        mock.patch.object(jaccard, "_SUMS", np.float32),
        mock.patch.object(clustering, "TIE_TOLERANCE", 0.0),
    ):
        yield


def _weights(
    features: Tensor, table: Any, distances: Any, indptr: NDArray[np.int64], members: NDArray[np.int32]
) -> NDArray[np.float32]:
    return reference_weights(features, indptr, members)


@torch.no_grad()
def reference_weights(
    features: Tensor, indptr: NDArray[np.int64], members: NDArray[np.int32]
) -> NDArray[np.float32]:
    """Softmax of minus the squared distance over each row's set, by the library calls of fast-reid.

    Row by row on purpose: a product of another shape may round differently.

    Args:
        features: ``(N, D)`` float32.
        indptr: ``(N + 1,)`` ends of the sets in ``members``.
        members: the sets, ascending within each.
    """
    features = features.cpu()
    values = np.empty(len(members), dtype=np.float32)
    for i, (start, stop) in enumerate(zip(indptr[:-1].tolist(), indptr[1:].tolist(), strict=True)):
        x, y = features[i : i + 1], features[torch.from_numpy(members[start:stop])]
        squares = x.pow(2).sum(dim=1, keepdim=True) + y.pow(2).sum(dim=1, keepdim=True).t()
        squares.addmm_(x, y.t(), beta=1, alpha=-2)
        values[start:stop] = torch.softmax(-squares, dim=1).view(-1).numpy()
    return values
