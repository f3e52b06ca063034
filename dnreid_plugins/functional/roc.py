"""Verification: how many genuine pairs are accepted at a given rate of accepted impostor pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ._retrieval import Features, Matches, Metric, Removal, distance_blocks
from .ranking import Ids


def tar_at_far(
    query_features: Features,
    gallery_features: Features,
    query_ids: Ids,
    gallery_ids: Ids,
    query_cams: Ids | None = None,
    gallery_cams: Ids | None = None,
    *,
    far: Sequence[float] = (1e-4, 1e-3, 1e-2),
    metric: Metric = "cosine",
    remove: Removal | None = None,
    block: int = 512,
) -> dict[str, float]:
    """True-accept rate in percent at each false-accept rate, over all query-gallery pairs that are kept.

    A genuine pair has one identity, an impostor pair two. For ``M`` impostors and the rate ``f`` the threshold
    is the impostor distance with exactly ``floor(f * M)`` others before it, and a pair is accepted when it is
    strictly nearer; so ties never accept more impostors than allowed. Exact: only the nearest
    ``max(f) * M`` impostor distances are kept, not all.

    Args:
        far: rates in [0, 1]. The others are those of :func:`rank_metrics`.

    Returns:
        ``TAR@FAR=1e-04`` and so on in percent; ``genuine_pairs`` and ``impostor_pairs`` counted.
    """
    if not far or min(far) < 0 or max(far) > 1:
        raise ValueError(
            f"far must be rates in [0, 1], got {tuple(far)}; 1e-3 is one impostor in a thousand."
        )
    matches = Matches(query_ids, gallery_ids, query_cams, gallery_cams, remove=remove)
    matches.check_shape(len(query_features), len(gallery_features))
    most = int(np.ceil(max(far) * len(query_features) * len(gallery_features))) + 1
    near, genuine = np.empty(0, np.float32), [np.empty(0, np.float32)]
    impostors = start = 0
    for distances in distance_blocks(query_features, gallery_features, metric=metric, block=block):
        matches.hide_removed(distances, start)
        genuine += [_take_genuine(row, matches.same_identity(start + r)) for r, row in enumerate(distances)]
        kept = distances[np.isfinite(distances)]
        impostors += len(kept)
        near = _smallest(np.concatenate([near, kept]), most)
        start += len(distances)
    pairs = np.concatenate(genuine)
    if len(pairs) == 0 or impostors == 0:
        raise ValueError(
            f"needs genuine and impostor pairs, got {len(pairs)} and {impostors}; check the ids."
        )
    near = np.sort(near)
    result = {}
    for rate in far:
        allowed = int(np.floor(rate * impostors + 1e-9))
        threshold = near[allowed] if allowed < impostors else np.inf
        result[f"TAR@FAR={rate:.0e}"] = 100.0 * float((pairs < threshold).mean())
    return result | {"genuine_pairs": float(len(pairs)), "impostor_pairs": float(impostors)}


def _take_genuine(row: NDArray[np.float32], same: NDArray[np.int64]) -> NDArray[np.float32]:
    """Distances of the genuine pairs of one query; they become infinite in ``row``."""
    values = row[same]
    row[same] = np.inf
    return values[np.isfinite(values)]


def _smallest(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    if len(values) <= count:
        return values
    return np.partition(values, count - 1)[:count]
