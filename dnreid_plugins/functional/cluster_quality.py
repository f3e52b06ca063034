"""Quality of pseudo labels: against true identities, or by figures that need none."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

SAMPLE = 4096
"""Images whose silhouette is measured, spread evenly over all clustered ones; more change its third digit at most."""

_BLOCK = 1024


def cluster_quality(labels: ArrayLike | Tensor, true_ids: ArrayLike | Tensor) -> dict[str, float]:
    """Agreement of pseudo labels with true identities, in [0, 1] (ARI and AMI may be slightly negative).

    Args:
        labels: ``(N,)`` integers, -1 = outlier.
        true_ids: ``(N,)`` integers.

    Returns:
        ``ARI``, ``AMI``, ``FMI``, ``V`` over all images, where every outlier is a cluster of its own (outliers train
        nothing, and putting them into one cluster would change the score arbitrarily); the same with
        the suffix ``_clustered`` over the images that are in a cluster (NaN when there is none).
    """
    found, true = _vector(labels), _vector(true_ids)
    if found.shape != true.shape:
        raise ValueError(f"labels and true_ids must be equally long, got {found.shape} and {true.shape}.")
    outlier = found < 0
    alone = found.copy()
    alone[outlier] = found.max(initial=-1) + 1 + np.arange(outlier.sum())
    scores = _scores(alone, true)
    scores |= {f"{name}_clustered": value for name, value in _scores(found[~outlier], true[~outlier]).items()}
    return scores


def label_free_quality(
    labels: ArrayLike | Tensor, features: NDArray[np.floating] | Tensor, *, sample: int = SAMPLE
) -> dict[str, float]:
    """Quality of pseudo labels that can be measured without true identities.

    Args:
        labels: ``(N,)`` integers, -1 = outlier.
        features: ``(N, D)``, normalised here.
        sample: silhouettes of at most so many images are measured; the centroids are those of all images.

    Returns:
        ``clusters``; ``share_clustered`` and ``share_largest`` (of all N images, in [0, 1]; a large value of
        the second means that clusters have merged); ``silhouette`` in [-1, 1]: the mean over clustered
        images of the simplified silhouette ``(b - a) / max(a, b)`` with ``a`` the cosine distance to the own
        centroid and ``b`` to the nearest other one (Hruschka et al., 2006). NaN with fewer than two clusters.
    """
    found = _vector(labels)
    rows = np.asarray(features.detach().cpu() if isinstance(features, Tensor) else features, dtype=np.float32)
    if rows.ndim != 2 or len(rows) != len(found):
        raise ValueError(f"features must be ({len(found)}, D) like labels, got {rows.shape}.")
    sizes = np.bincount(found[found >= 0])
    total = max(len(found), 1)
    return {
        "clusters": float((sizes > 0).sum()),
        "share_clustered": float((found >= 0).sum() / total),
        "share_largest": float(sizes.max(initial=0) / total),
        "silhouette": _simplified_silhouette(found, rows, sample),
    }


def label_stability(labels: ArrayLike | Tensor, previous: ArrayLike | Tensor) -> float:
    """How far two labellings of the same images agree: adjusted Rand index on the images clustered in both.

    Args:
        labels, previous: ``(N,)`` integers, -1 = outlier.

    Returns:
        1 for the same groups, about 0 for unrelated ones; NaN if no two images are clustered in both.
    """
    a, b = _vector(labels), _vector(previous)
    if a.shape != b.shape:
        raise ValueError(f"labels and previous must be equally long, got {a.shape} and {b.shape}.")
    both = (a >= 0) & (b >= 0)
    a, b = a[both], b[both]
    if len(a) < 2:
        return float("nan")
    together = _pairs(np.unique(a * (b.max() + 1) + b, return_counts=True)[1])
    in_a, in_b = _pairs(np.bincount(a)), _pairs(np.bincount(b))
    by_chance = in_a * in_b / _pairs(np.array([len(a)]))
    most = (in_a + in_b) / 2
    return 1.0 if most == by_chance else (together - by_chance) / (most - by_chance)


def mutual_share(day: Tensor, night: Tensor) -> float:
    """Share of all clusters that have a partner: each is the nearest centroid of the other, across the domains.

    Args:
        day, night: ``(C_day, D)`` and ``(C_night, D)`` unit rows; among equally near ones the first counts.

    Returns:
        In [0, 1]; with unequal numbers of clusters it cannot reach 1. NaN if a domain has no cluster.
    """
    if not len(day) or not len(night):
        return float("nan")
    similarity = day @ night.T
    to_night, to_day = similarity.argmax(dim=1), similarity.argmax(dim=0)
    mutual = to_day[to_night] == torch.arange(len(day), device=day.device)
    return 2.0 * int(mutual.sum()) / (len(day) + len(night))


def _pairs(counts: NDArray[np.integer]) -> float:
    return float((counts.astype(np.float64) * (counts - 1) / 2).sum())


def _simplified_silhouette(labels: NDArray[np.int64], rows: NDArray[np.float32], sample: int) -> float:
    kept = np.flatnonzero(labels >= 0)
    names, codes = np.unique(labels[kept], return_inverse=True)
    if len(names) < 2:
        return float("nan")
    sums = torch.zeros(len(names), rows.shape[1])
    for start in range(0, len(kept), _BLOCK):  # a block at a time: unit rows of all would be a second matrix
        own = torch.from_numpy(codes[start : start + _BLOCK])
        sums.index_add_(0, own, torch.from_numpy(_unit(rows[kept[start : start + _BLOCK]])))
    centroids = _unit(sums.numpy())
    chosen = np.unique(np.linspace(0, len(kept) - 1, min(sample, len(kept))).astype(np.int64))
    total = 0.0
    for start in range(0, len(chosen), _BLOCK):  # never more than 1024 x C distances
        part = chosen[start : start + _BLOCK]
        line, mine = np.arange(len(part)), codes[part]
        distance = np.maximum(1 - _unit(rows[kept[part]]) @ centroids.T, 0)
        a = distance[line, mine]
        distance[line, mine] = np.inf
        b = distance.min(axis=1)
        total += float(((b - a) / np.maximum(np.maximum(a, b), 1e-12)).sum())
    return total / len(chosen)


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(norms, 1e-12)
    return unit


def _scores(found: NDArray[np.int64], true: NDArray[np.int64]) -> dict[str, float]:
    from sklearn import metrics  # slow to import, and only runs with known identities need it

    functions = {
        "ARI": metrics.adjusted_rand_score,
        "AMI": metrics.adjusted_mutual_info_score,
        "FMI": metrics.fowlkes_mallows_score,
        "V": metrics.v_measure_score,
    }
    if len(found) == 0:
        return dict.fromkeys(functions, float("nan"))
    return {name: float(function(true, found)) for name, function in functions.items()}


def _vector(values: ArrayLike | Tensor) -> NDArray[np.int64]:
    vector = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if vector.ndim != 1:
        raise ValueError(f"labels must be a vector, got shape {vector.shape}; give one integer per image.")
    return vector.astype(np.int64)
