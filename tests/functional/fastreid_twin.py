"""fast-reid's dense Jaccard distance on a given k-NN table, and data sets of many kinds for comparisons."""

from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

KINDS = (
    "clusters", "noise", "copies", "near copies", "lengths", "constant", "one cluster", "grid", "two groups"
)  # fmt: skip


def make_features(kind: str, num: int, dim: int, seed: int) -> torch.Tensor:
    """``(num, dim)`` float32 rows; all but ``lengths``, ``constant`` and ``grid`` are unit rows."""
    generator = torch.Generator().manual_seed(seed)

    def noise(rows: int) -> torch.Tensor:
        return torch.randn(rows, dim, generator=generator) / dim**0.5

    def pick(rows: int) -> torch.Tensor:
        return torch.randint(rows, (num,), generator=generator)

    if kind == "constant":
        return torch.ones(num, dim)
    if kind == "grid":
        return torch.randint(0, 3, (num, dim), generator=generator).float() / dim**0.5
    features = {
        "clusters": lambda: noise(max(num // 12, 1))[pick(max(num // 12, 1))] + 0.7 * noise(num),
        "noise": lambda: noise(num),
        "copies": lambda: noise(max(num // 4, 1))[pick(max(num // 4, 1))],
        "near copies": lambda: noise(max(num // 6, 1))[pick(max(num // 6, 1))] + 1e-4 * noise(num),
        "lengths": lambda: noise(max(num // 12, 1))[pick(max(num // 12, 1))] + 0.7 * noise(num),
        "one cluster": lambda: noise(1) + 0.2 * noise(num),
        "two groups": lambda: noise(2)[pick(2)] + 0.5 * noise(num),
    }[kind]()
    features = torch.nn.functional.normalize(features, dim=1)
    if kind == "lengths":
        features *= 0.5 + 3 * torch.rand(num, 1, generator=generator)
    return features


class _GivenTable:
    """Stands where fast-reid asks faiss, so that both sides start from the same k-NN table."""

    def __init__(self, table: NDArray[np.integer]) -> None:
        self.table = table

    def add(self, features: NDArray[np.float32]) -> None: ...

    def search(self, features: NDArray[np.float32], k: int) -> tuple[None, NDArray[Any]]:
        return None, np.asarray(self.table[:, :k], dtype=np.int64)


def fastreid_jaccard(
    features: torch.Tensor, table: NDArray[np.integer], *, k1: int, k2: int
) -> NDArray[np.float32]:
    """``(N, N)`` float32 of fast-reid's own function; ``k1`` clamped to N as ours is."""
    from fastreid.utils import compute_dist

    k1 = min(k1, len(features))
    with mock.patch.object(compute_dist, "index_init_cpu", lambda dim: _GivenTable(table)):
        distances: NDArray[np.float32] = compute_dist.compute_jaccard_distance(
            features.clone(), k1=k1, k2=k2, search_option=3
        )
    return distances
