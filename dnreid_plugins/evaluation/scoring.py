"""Features in, percentages out: one search direction with fast-reid's test options."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.protocols import ImageLabels, Mask, Removal, nothing, same_identity_and_camera
from ..functional.neighbours.clustering import estimate_label_phase
from ..functional.ranking.metrics import (
    QueryRanks,
    distances_of_query,
    rank_distances,
    rank_features,
    summarize,
)
from ..functional.ranking.rerank import jaccard_distances
from ..functional.ranking.roc import true_positive_rates
from ..runtime.devices import GIB, available_memory
from .query_expansion import expand_features

logger = logging.getLogger(__name__)

Ids = npt.NDArray[np.int64]
_BLOCK = 512


@dataclass(frozen=True)
class ScoreOptions:
    """fast-reid's ``TEST`` keys that change a score. ``rerank`` is (k1, k2, lambda), ``aqe`` (k, alpha, times)."""

    metric: Literal["cosine", "euclidean"] = "cosine"
    rerank: tuple[int, int, float] | None = None
    aqe: tuple[int, float, int] | None = None
    roc: bool = False

    def __post_init__(self) -> None:
        if self.metric not in ("cosine", "euclidean"):
            raise ValueError(f"TEST.METRIC is {self.metric!r}; choose 'cosine' or 'euclidean'")

    @classmethod
    def from_config(cls, cfg: Any) -> ScoreOptions:
        rerank, aqe = cfg.TEST.RERANK, cfg.TEST.AQE
        return cls(
            metric=cfg.TEST.METRIC,
            rerank=(rerank.K1, rerank.K2, rerank.LAMBDA) if rerank.ENABLED else None,
            aqe=(aqe.QE_K, aqe.ALPHA, aqe.QE_TIME) if aqe.ENABLED else None,
            roc=cfg.TEST.ROC.ENABLED,
        )

    def words(self) -> list[str]:
        """What a reader of the figures must know."""
        found = [f"{self.metric} distances"]
        if self.aqe is not None:
            found.append("query expansion with k {}, alpha {:g}, {} times".format(*self.aqe))
        if self.rerank is not None:
            found.append("also re-ranked with k1 {}, k2 {}, lambda {:g}".format(*self.rerank))
        return found


@dataclass(frozen=True, eq=False)
class Side:
    """Queries or gallery: features ``(N, D)``, identities ``(N,)``, cameras ``(N,)`` or None = nothing is removed."""

    features: Tensor
    ids: Ids
    cams: Ids | None = None


def score(
    query: Side,
    gallery: Side,
    *,
    options: ScoreOptions,
    removal: Removal = same_identity_and_camera,
    topk: Sequence[int] = (1, 5, 10),
    cmc: Literal["image", "identity"] = "image",
) -> dict[str, float]:
    """Rank-k, mAP, mINP (and ``TPR@FPR``) of one direction in percent, as plain floats.

    Queries without a correct gallery image are left out of all averages; their number is logged, and returned as
    ``queries_without_match`` when it is not 0. With re-ranking the features are normalised first, for both metrics: a
    Jaccard distance in [0, 1] cannot be mixed with unbounded ones.

    Raises:
        ValueError: features are all the same or not finite, or no query has a correct image.
    """
    ranking = rank(query, gallery, options=options, removal=removal, cmc=cmc)
    result = summarize(ranking.queries, topk=topk)
    if options.roc:
        if ranking.reranked is None:
            blocks = _distance_blocks(ranking.left, ranking.right, options.metric)
        else:
            blocks = iter([ranking.reranked])
        result.update(true_positive_rates(blocks, query.ids, gallery.ids, remove=ranking.remove))
    return _reported(result)


@dataclass(frozen=True, eq=False)
class Ranking:
    """How a gallery is ordered for every query.

    Attributes:
        queries: the per-query values, whose averages are the metrics.
        left, right: features ``(Q, D)`` and ``(G, D)`` after normalisation and query expansion.
        reranked: ``(Q, G)`` distances where they were re-ranked, else None.
        remove: from query rows to the gallery images that they do not see; None where every query sees all.
        metric: of the distances that are not re-ranked.
    """

    queries: QueryRanks
    left: Tensor
    right: Tensor
    reranked: npt.NDArray[np.float32] | None
    remove: Callable[[Ids], Mask] | None
    metric: Literal["cosine", "euclidean"]

    def row(self, query: int) -> tuple[npt.NDArray[np.float32], Mask]:
        """Distances ``(G,)`` of one query, to the bit those of the metrics, and which images it does not see.

        The order of the gallery is that of (distance, place in the gallery) without the removed images.
        """
        hidden = np.zeros((1, len(self.right)), dtype=bool)
        if self.remove is not None:
            hidden = np.asarray(self.remove(np.array([query])), dtype=bool)
        if self.reranked is not None:
            return self.reranked[query], hidden[0]
        return distances_of_query(self.left, self.right, query, metric=self.metric), hidden[0]


def rank(
    query: Side,
    gallery: Side,
    *,
    options: ScoreOptions,
    removal: Removal = same_identity_and_camera,
    cmc: Literal["image", "identity"] = "image",
) -> Ranking:
    """The order of the gallery for every query; arguments and errors as of :func:`score`."""
    check_features(torch.cat([query.features[:_BLOCK], gallery.features[:_BLOCK]]))
    left, right = _prepared(query.features, gallery.features, options)
    remove, ids, distances = _removed(query, gallery, removal), (query.ids, gallery.ids), None
    if options.rerank is None:
        queries = rank_features(left, right, *ids, metric=options.metric, remove=remove, cmc=cmc)
    else:
        distances = _reranked(left, right, options)
        queries = rank_distances(distances, *ids, remove=remove, cmc=cmc)
    return Ranking(queries, left, right, distances, remove, options.metric)


def _removed(query: Side, gallery: Side, removal: Removal) -> Callable[[Ids], Mask] | None:
    """From query rows to the gallery images that they do not see; None where every query sees all."""
    if removal is nothing or query.cams is None or gallery.cams is None:
        return None
    ids, cams, seen = query.ids, query.cams, ImageLabels(gallery.ids, gallery.cams)
    return lambda rows: removal(ImageLabels(ids[rows], cams[rows]), seen)


def check_features(features: Tensor) -> None:
    """Refuse features that are not finite or (nearly) all the same: their ranking would be the order of the list.

    Raises:
        ValueError: they are.
    """
    if not bool(torch.isfinite(features).all()):
        raise ValueError("features contain NaN or infinity; load an intact checkpoint")
    spread = (features - features[:1]).abs().max()
    if len(features) > 1 and bool(spread <= 1e-6 * features.abs().max()):
        raise ValueError(
            f"all {len(features)} features are the same, so every ranking is the order of the list; the model has "
            "collapsed: load another checkpoint or lower SOLVER.BASE_LR"
        )


def _prepared(query: Tensor, gallery: Tensor, options: ScoreOptions) -> tuple[Tensor, Tensor]:
    if options.aqe is not None:
        k, alpha, times = options.aqe
        both = expand_features(torch.cat([query, gallery]), k=k, alpha=alpha, times=times)
        query, gallery = both[: len(query)], both[len(query) :]
    if options.metric == "cosine" or options.rerank is not None:
        query, gallery = F.normalize(query, dim=1), F.normalize(gallery, dim=1)
    return query, gallery


def _reranked(query: Tensor, gallery: Tensor, options: ScoreOptions) -> npt.NDArray[np.float32]:
    assert options.rerank is not None
    k1, k2, share = options.rerank
    check_rerank_memory(len(query), len(gallery), query.shape[1], k1=k1, available=available_memory())
    distances = jaccard_distances(query, gallery, k1=k1, k2=k2)
    distances *= 1.0 - share
    for number, block in enumerate(_distance_blocks(query, gallery, options.metric)):
        distances[number * _BLOCK : number * _BLOCK + len(block)] += share * block
    return distances


def check_rerank_memory(queries: int, gallery: int, dim: int, *, k1: int, available: int | None) -> None:
    """Refuse a re-ranking that would need more than ``available`` bytes (None = unknown), before it begins.

    It holds the neighbours of all ``Q + G`` images, then every distance of a query to a gallery image: four bytes, and
    one for the check that it is finite.

    Raises:
        ValueError: with what would fit.
    """
    graph = estimate_label_phase(queries + gallery, dim, k1=k1, rate=1.0).bytes
    need = graph + 5 * queries * gallery
    if available is None or need <= available:
        return
    fits = int((available - graph) // (5 * gallery))
    way_out = f"{fits} queries would fit" if fits > 0 else "not even one query would fit"
    raise ValueError(
        f"Re-ranking {queries} queries in a gallery of {gallery} needs about {need / GIB:.1f} GiB, and "
        f"{available / GIB:.1f} GiB are free; {way_out}. The plain figures need none of it: set TEST.RERANK.ENABLED "
        "False, or use a machine with more memory."
    )


def _distance_blocks(query: Tensor, gallery: Tensor, metric: str) -> Iterator[npt.NDArray[np.float32]]:
    """``1 - cosine`` of unit rows, or squared Euclidean distances, for consecutive blocks of queries."""
    for start in range(0, len(query), _BLOCK):
        rows = query[start : start + _BLOCK]
        product = rows @ gallery.t()
        if metric == "cosine":
            yield (1.0 - product).numpy()
        else:
            squares = rows.square().sum(dim=1, keepdim=True) + gallery.square().sum(dim=1)
            yield (squares - 2.0 * product).clamp(min=0.0).numpy()


def _reported(result: dict[str, float]) -> dict[str, float]:
    total, unmatched = result.pop("queries"), result.pop("queries_without_match")
    if unmatched:
        logger.warning(
            "%d of %d queries have no correct gallery image and count in no average", unmatched, total
        )
        result["queries_without_match"] = unmatched
    return {name: float(value) for name, value in result.items()}
