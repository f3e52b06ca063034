"""CMC, mAP and mINP straight from features: one block of queries at a time, nothing is ever fully sorted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ._jit import map_rows
from ._ranking_kernels import rank_rows
from .knn import as_matrix

Features = NDArray[np.floating] | Tensor
Removal = NDArray[np.bool_] | Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""Which gallery images a query does not see: ``(Q, G)`` mask, or a function from query rows to their mask."""


class QueryRanks(NamedTuple):
    """What the metrics are averages of; one entry per query, in query order.

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
    query_ids: ArrayLike,
    gallery_ids: ArrayLike,
    query_cams: ArrayLike | None = None,
    gallery_cams: ArrayLike | None = None,
    *,
    topk: Sequence[int] = (1, 5, 10),
    metric: Literal["cosine", "euclidean"] = "cosine",
    remove: Removal | None = None,
    cmc: Literal["image", "identity"] = "image",
    block: int = 512,
) -> dict[str, float]:
    """Retrieval metrics in percent, equal to fast-reid's ``evaluate_rank``.

    Images are ordered by (distance, gallery index). With cameras given, gallery images with the identity
    and the camera of the query are removed, as fast-reid does. A query without a correct image left is
    counted in ``queries_without_match`` and in no average.

    Args:
        query_features, gallery_features: ``(Q, D)`` and ``(G, D)``; refused if not finite.
        query_ids, gallery_ids: ``(Q,)`` and ``(G,)`` integers.
        query_cams, gallery_cams: ``(Q,)`` and ``(G,)`` integers, both or neither.
        topk: the k of the Rank-k entries; beyond the gallery the curve keeps its last value.
        metric: ``cosine`` is ``1 - cos``; ``euclidean`` is squared.
        remove: further gallery images to remove, see :data:`Removal`.
        cmc: ``identity`` collapses the images of each identity to the first (SYSU-MM01, LLCM).
        block: queries per product; changes speed and memory, not the result.

    Returns:
        ``Rank-k`` for each k, ``mAP``, ``mINP``, ``queries`` (all given), ``queries_without_match``.
    """
    ranks = rank_queries(
        query_features,
        gallery_features,
        query_ids,
        gallery_ids,
        query_cams,
        gallery_cams,
        metric=metric,
        remove=remove,
        cmc=cmc,
        block=block,
    )
    return summarize(ranks, topk=topk)


def rank_metrics_both(
    features_a: Features,
    features_b: Features,
    ids_a: ArrayLike,
    ids_b: ArrayLike,
    cams_a: ArrayLike | None = None,
    cams_b: ArrayLike | None = None,
    *,
    topk: Sequence[int] = (1, 5, 10),
    metric: Literal["cosine", "euclidean"] = "cosine",
    cmc: Literal["image", "identity"] = "image",
    block: int = 512,
    matrix_limit: int = 512 * 2**20,
) -> tuple[dict[str, float], dict[str, float]]:
    """:func:`rank_metrics` of ``a`` searching ``b`` and of ``b`` searching ``a``, multiplied only once.

    A rank needs a whole row of distances and the other direction a whole column, so the ``(A, B)`` float32
    matrix is kept when it takes at most ``matrix_limit`` bytes; above that each direction makes its own pass.
    """
    options = {"topk": topk, "metric": metric, "cmc": cmc, "block": block}
    if 4 * len(features_a) * len(features_b) > matrix_limit:
        forward = rank_metrics(features_a, features_b, ids_a, ids_b, cams_a, cams_b, **options)  # type: ignore[arg-type]
        return forward, rank_metrics(features_b, features_a, ids_b, ids_a, cams_b, cams_a, **options)  # type: ignore[arg-type]
    left, right = _prepare(features_a, features_b, metric)
    distances = np.empty((left.shape[0], right.shape[0]), dtype=np.float32)
    for start in range(0, left.shape[0], block):
        distances[start : start + block] = _distances(left[start : start + block], right, metric)
    there = rank_distances(distances, ids_a, ids_b, cams_a, cams_b, cmc=cmc, block=block)
    back = rank_distances(distances.T, ids_b, ids_a, cams_b, cams_a, cmc=cmc, block=block)
    return summarize(there, topk=topk), summarize(back, topk=topk)


def rank_queries(
    query_features: Features,
    gallery_features: Features,
    query_ids: ArrayLike,
    gallery_ids: ArrayLike,
    query_cams: ArrayLike | None = None,
    gallery_cams: ArrayLike | None = None,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    remove: Removal | None = None,
    cmc: Literal["image", "identity"] = "image",
    block: int = 512,
) -> QueryRanks:
    """The per-query values behind :func:`rank_metrics`; same arguments."""
    query, gallery = _prepare(query_features, gallery_features, metric)
    ranker = _Ranker(query_ids, gallery_ids, query_cams, gallery_cams, remove=remove, cmc=cmc)
    ranker.check_shape(query.shape[0], gallery.shape[0])
    parts = [
        ranker.rank(_distances(query[start : start + block], gallery, metric), start)
        for start in range(0, query.shape[0], block)
    ]
    return _joined(parts)


def rank_distances(
    distances: NDArray[np.floating],
    query_ids: ArrayLike,
    gallery_ids: ArrayLike,
    query_cams: ArrayLike | None = None,
    gallery_cams: ArrayLike | None = None,
    *,
    remove: Removal | None = None,
    cmc: Literal["image", "identity"] = "image",
    block: int = 512,
) -> QueryRanks:
    """:func:`rank_queries` on a given ``(Q, G)`` distance matrix, which is not changed."""
    if not np.isfinite(distances).all():
        raise ValueError("distances has NaN or infinite entries; remove images with `remove`.")
    ranker = _Ranker(query_ids, gallery_ids, query_cams, gallery_cams, remove=remove, cmc=cmc)
    ranker.check_shape(*distances.shape)
    parts = [
        ranker.rank(np.array(distances[start : start + block], order="C"), start)
        for start in range(0, distances.shape[0], block)
    ]
    return _joined(parts)


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


class _Ranker:
    """Identities, cameras and removal rule of one evaluation; ranks blocks of distances."""

    def __init__(
        self,
        query_ids: ArrayLike,
        gallery_ids: ArrayLike,
        query_cams: ArrayLike | None,
        gallery_cams: ArrayLike | None,
        *,
        remove: Removal | None,
        cmc: str,
    ) -> None:
        if (query_cams is None) != (gallery_cams is None):
            raise ValueError("query_cams and gallery_cams must be given together; got only one of them.")
        if cmc not in ("image", "identity"):
            raise ValueError(f"cmc must be 'image' or 'identity', got {cmc!r}.")
        self.by_identity = cmc == "identity"
        self.remove = remove
        query, gallery = _vector(query_ids, "query_ids"), _vector(gallery_ids, "gallery_ids")
        names, codes = np.unique(gallery, return_inverse=True)
        self.gallery_codes = codes.astype(np.int64)
        self.id_members = np.argsort(codes, kind="stable")
        self.id_ends = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(names)))])
        place = np.searchsorted(names, query)
        known = np.zeros(len(query), dtype=bool)
        known[place < len(names)] = names[place[place < len(names)]] == query[place < len(names)]
        self.query_codes = np.where(known, place, -1)
        self.cameras: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        if query_cams is not None and gallery_cams is not None:
            cams = _vector(query_cams, "query_cams"), _vector(gallery_cams, "gallery_cams")
            if len(cams[0]) != len(query) or len(cams[1]) != len(gallery):
                raise ValueError(
                    f"cameras must match ids, got {len(cams[0])} for {len(query)} queries and "
                    f"{len(cams[1])} for {len(gallery)} gallery images."
                )
            if np.intersect1d(*cams).size:  # otherwise no image has the camera of a query
                self.cameras = cams

    def check_shape(self, queries: int, gallery: int) -> None:
        if (queries, gallery) != (len(self.query_codes), len(self.gallery_codes)):
            raise ValueError(
                f"got {len(self.query_codes)} query ids and {len(self.gallery_codes)} gallery ids for "
                f"{queries} queries and {gallery} gallery images; give one id per row."
            )

    def rank(self, distances: NDArray[np.float32], start: int) -> QueryRanks:
        """Ranks of the queries ``start ..``; writes infinity over the distances of removed images."""
        rows = np.arange(start, start + len(distances))
        if self.remove is not None:
            mask = self.remove(rows) if callable(self.remove) else self.remove[rows]
            distances[mask] = np.inf
        codes = self.query_codes[rows]
        if self.cameras is not None:
            for r, code in enumerate(codes):
                members = self.id_members[self.id_ends[code] : self.id_ends[code + 1]] if code >= 0 else ()
                if len(members):
                    distances[r, members[self.cameras[1][members] == self.cameras[0][rows[r]]]] = np.inf
        parts = map_rows(
            lambda a, b: QueryRanks(
                *rank_rows(
                    distances,
                    codes,
                    self.id_ends,
                    self.id_members,
                    self.gallery_codes,
                    self.by_identity,
                    a,
                    b,
                )
            ),
            len(distances),
            chunk=64,
        )
        return _joined(parts)


def _prepare(query: Features, gallery: Features, metric: str) -> tuple[Tensor, Tensor]:
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}.")
    left, right = as_matrix(query, "query_features"), as_matrix(gallery, "gallery_features")
    if left.shape[1] != right.shape[1]:
        raise ValueError(f"query has {left.shape[1]} dimensions and gallery {right.shape[1]}; use one model.")
    if metric == "cosine":
        left, right = normalize(left, dim=1), normalize(right, dim=1)
    return left, right.to(left.device)


def _distances(query: Tensor, gallery: Tensor, metric: str) -> NDArray[np.float32]:
    product = torch.mm(query, gallery.t())
    if metric == "cosine":
        distances = torch.sub(1, product, out=product)
    else:
        squares = query.square().sum(dim=1, keepdim=True) + gallery.square().sum(dim=1)
        distances = squares.sub_(product, alpha=2)
    return distances.cpu().numpy()


def _vector(values: ArrayLike, name: str) -> NDArray[np.int64]:
    vector = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    if vector.ndim != 1:
        raise ValueError(f"{name} must be a vector, got shape {vector.shape}; give one integer per image.")
    return vector.astype(np.int64)


def _joined(parts: list[QueryRanks]) -> QueryRanks:
    if not parts:
        return QueryRanks(np.empty(0, np.int64), np.empty(0), np.empty(0))
    return QueryRanks(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
