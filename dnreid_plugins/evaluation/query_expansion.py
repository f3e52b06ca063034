"""Average query expansion with alpha weights, one block of rows at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def expand_features(
    features: Tensor, *, k: int = 5, alpha: float = 3.0, times: int = 1, block: int = 1024
) -> Tensor:
    """Each row becomes the mean of its ``k`` nearest rows (itself included), weighted by ``cosine ** alpha``.

    Radenovic et al., TPAMI 2018 (alpha-QE); equal to fast-reid's ``aqe`` wherever that gives a number. A negative
    cosine with a fractional ``alpha``, NaN there, has weight 0 here.

    Args:
        features: ``(N, D)`` queries and gallery together.
        k: neighbours; more than N is clamped to N.
        times: how often the expansion is repeated.
        block: rows per product; changes memory, not the result.

    Raises:
        ValueError: ``k`` or ``times`` is below 1.
    """
    if k < 1 or times < 1:
        raise ValueError(f"TEST.AQE.QE_K is {k} and QE_TIME {times}; both must be at least 1")
    for _ in range(times):
        unit = F.normalize(features, dim=1)
        parts = []
        for start in range(0, len(features), block):
            similarity = unit[start : start + block] @ unit.t()
            weights, nearest = similarity.topk(min(k, len(features)), dim=1)
            if alpha != int(alpha):
                weights = weights.clamp(min=0)
            weights = weights.pow(alpha).unsqueeze(2)
            parts.append((features[nearest] * weights).mean(dim=1))
        features = torch.cat(parts)
    return features
