"""CMC, mAP and mINP straight from features: one block of queries at a time, nothing is ever fully sorted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .._jit import map_rows
from ..precision import in_full_precision
from ._kernels import rank_rows
from ._retrieval import Features, Matches, Metric, Removal, distance_blocks

Ids = ArrayLike | Tensor


class QueryRanks(NamedTuple):
    """The per-query values that the metrics are averages of, in query order.

    Attributes:
        first_rank: ``(Q,)`` int64, rank of the first correct image counted from 0; -1 = no correct image.
        average_precision: ``(Q,)`` float64 in [0, 1]; NaN without a correct image.
        inverse_penalty: ``(Q,)`` float64 in [0, 1], correct images / rank of the last one; NaN as above.
    """

    first_rank: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    inverse_penalty: NDArray[np.float64]


def rank_metrics(
    query_features: Features,
    gallery_features: Features,
    query_ids: Ids,
    gallery_ids: Ids,
    *,
    topk: Sequence[int] = (1, 5, 10),
    metric: Metric = "cosine",
    remove: Removal | None = None,
    cmc: Literal["image", "identity"] = "image",
    block: int = 512,
) -> dict[str, float]:
    """Retrieval metrics in percent, equal to fast-reid's ``evaluate_rank``.

    Images are ordered by (distance, gallery index). A query without a correct image left is counted in
    ``queries_without_match`` and in no average.

    Args:
        query_features, gallery_features: ``(Q, D)`` and ``(G, D)``; refused if not finite.
        query_ids, gallery_ids: ``(Q,)`` and ``(G,)`` integers.
        topk: the k of the Rank-k entries; beyond the gallery's size the curve keeps its last value.
        metric: ``cosine`` is ``1 - cos``; ``euclidean`` is squared.
        remove: from an array of query rows ``(B,)`` to the gallery images ``(B, G)`` that are removed for them.
        cmc: ``identity`` collapses the images of each identity to the first (SYSU-MM01, LLCM).
        block: queries per product; changes speed and memory only.

    Returns:
        ``Rank-k`` for each k, ``mAP``, ``mINP``, ``queries`` (all given), ``queries_without_match``.
    """
    ids = query_ids, gallery_ids
    ranks = rank_features(
        query_features, gallery_features, *ids, metric=metric, remove=remove, cmc=cmc, block=block
    )
    return summarize(ranks, topk=topk)


@in_full_precision
def rank_features(
    query_features: Features,
    gallery_features: Features,
    query_ids: Ids,
    gallery_ids: Ids,
    *,
    metric: Metric = "cosine",
    remove: Removal | None = None,
    cmc: Literal["image", "identity"] = "image",
    block: int = 512,
) -> QueryRanks:
    """The per-query values behind :func:`rank_metrics`; arguments as there."""
    matches = Matches(query_ids, gallery_ids, remove=remove)
    matches.check_shape(len(query_features), len(gallery_features))
    blocks = distance_blocks(query_features, gallery_features, metric=metric, block=block)
    return _rank_blocks(blocks, matches, cmc=cmc)


@in_full_precision
def distances_of_query(
    query_features: Features, gallery_features: Features, row: int, *, metric: Metric, block: int = 512
) -> NDArray[np.float32]:
    """``(G,)`` distances of the query ``row``, to the bit those that :func:`rank_features` orders."""
    start = row - row % block  # the last bits of a product may depend on its block
    part = query_features[start : start + block]
    return next(distance_blocks(part, gallery_features, metric=metric, block=block))[row - start]


def rank_distances(
    distances: NDArray[np.floating],
    query_ids: Ids,
    gallery_ids: Ids,
    *,
    remove: Removal | None = None,
    cmc: Literal["image", "identity"] = "image",
    block: int = 512,
) -> QueryRanks:
    """The per-query values of a given ``(Q, G)`` distance matrix, which is not changed.

    Arguments as in :func:`rank_metrics`; :func:`summarize` makes the metrics of it.
    """
    if not np.isfinite(distances).all():
        raise ValueError("distances has NaN or infinite entries; to remove images give `remove`.")
    matches = Matches(query_ids, gallery_ids, remove=remove)
    matches.check_shape(*distances.shape)
    return _rank_blocks(_copies(distances, block), matches, cmc=cmc)


def summarize(ranks: QueryRanks, *, topk: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Averages in percent over the queries that have a correct image; see :func:`rank_metrics`."""
    valid = ranks.first_rank >= 0
    total, counted = len(valid), int(valid.sum())
    if counted == 0:
        raise ValueError(f"none of {total} queries has a correct image left; check ids, cameras and removal.")
    first = ranks.first_rank[valid]
    result = {f"Rank-{k}": 100.0 * float((first < k).mean()) for k in topk}
    result["mAP"] = 100.0 * float(ranks.average_precision[valid].mean())
    result["mINP"] = 100.0 * float(ranks.inverse_penalty[valid].mean())
    result["queries"] = float(total)
    result["queries_without_match"] = float(total - counted)
    return result


def _rank_blocks(blocks: Iterable[NDArray[np.float32]], matches: Matches, *, cmc: str) -> QueryRanks:
    if cmc not in ("image", "identity"):
        raise ValueError(f"cmc must be 'image' or 'identity', got {cmc!r}.")
    by_identity = cmc == "identity"
    parts = [QueryRanks(np.empty(0, np.int64), np.empty(0), np.empty(0))]
    start = 0
    for distances in blocks:
        matches.hide_removed(distances, start)
        codes = matches.query_codes[start : start + len(distances)]
        identities = (codes, matches.ends, matches.members, matches.gallery_codes)
        found = map_rows(partial(rank_rows, distances, *identities, by_identity), len(distances), chunk=64)
        parts += [QueryRanks(*arrays) for arrays in found]
        start += len(distances)
    return QueryRanks(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _copies(matrix: NDArray[np.floating], block: int) -> Iterator[NDArray[np.float32]]:
    """Consecutive row blocks, writable; float64 stays float64 so that the order is kept."""
    return (np.array(matrix[start : start + block], order="C") for start in range(0, len(matrix), block))
