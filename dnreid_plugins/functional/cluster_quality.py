"""Quality of pseudo labels, measured against true identities or without them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


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
    labels: ArrayLike | Tensor, features: NDArray[np.floating] | Tensor
) -> dict[str, float]:
    """Quality of pseudo labels that can be measured without true identities.

    Args:
        labels: ``(N,)`` integers, -1 = outlier.
        features: ``(N, D)``, normalised here.

    Returns:
        ``clusters``; ``share_clustered`` and ``share_largest`` (of all N images, in [0, 1]; a large value of
        the second means that clusters have merged); ``silhouette`` in [-1, 1]: the mean over clustered
        images of the simplified silhouette ``(b - a) / max(a, b)`` with ``a`` the cosine distance to the own
        centroid and ``b`` to the nearest other one. NaN with fewer than two clusters.
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
        "silhouette": _simplified_silhouette(found, rows),
    }


def _simplified_silhouette(labels: NDArray[np.int64], rows: NDArray[np.float32]) -> float:
    kept = labels >= 0
    names, codes = np.unique(labels[kept], return_inverse=True)
    if len(names) < 2:
        return float("nan")
    unit = _unit(rows[kept])
    order = np.argsort(codes, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(codes))[:-1]])
    centroids = _unit(np.add.reduceat(unit[order], starts, axis=0))
    total = 0.0
    for start in range(0, len(unit), 1024):  # never more than 1024 x C distances
        own = codes[start : start + 1024]
        distance = np.maximum(1 - unit[start : start + 1024] @ centroids.T, 0)
        a = distance[np.arange(len(own)), own]
        distance[np.arange(len(own)), own] = np.inf
        b = distance.min(axis=1)
        total += float(((b - a) / np.maximum(np.maximum(a, b), 1e-12)).sum())
    return total / len(unit)


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
