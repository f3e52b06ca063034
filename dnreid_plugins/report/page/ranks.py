"""Rank lists: what stands first for some queries, ordered and judged exactly as the metric does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...data.protocols import Direction
from ...evaluation.evaluator import Extracted
from ...evaluation.scoring import Ranking, Side, rank
from .pictures import Thumbnail, Thumbnails

#: Queries of each kind, and images of a list.
QUERIES, LENGTH = 3, 10


@dataclass(frozen=True)
class Result:
    """A gallery image in a list. ``rank`` counts from 1; None = the protocol removes it for this query."""

    path: str
    picture: Thumbnail
    rank: int | None
    correct: bool
    similarity: float


@dataclass(frozen=True)
class RankList:
    """The first gallery images of a query.

    Attributes:
        kind: why this query was chosen: "best", "worst", "random" or "named".
        ap: average precision in percent; NaN without a correct image.
        correct_ranks: of all correct images, counted from 1, also of those that are not shown.
    """

    kind: str
    picture: Thumbnail
    path: str
    ap: float
    correct_ranks: list[int]
    results: list[Result]

    @property
    def told_ranks(self) -> str:
        """The ranks of the first correct images in words."""
        shown = ", ".join(map(str, self.correct_ranks[:LENGTH]))
        more = len(self.correct_ranks) > LENGTH
        return f"rank {shown} … ({len(self.correct_ranks)} in all)" if more else f"rank {shown}"


@dataclass(frozen=True)
class DirectionLists:
    """One search direction: its lists, the mean AP of all its queries and what was left out."""

    name: str
    lists: list[RankList]
    mean_ap: float
    paths: list[str]
    aps: list[float]
    without_match: int
    galleries: int


def rank_lists(
    extracted: Extracted,
    thumbnails: Thumbnails,
    *,
    seed: int = 0,
    queries: Mapping[str, Sequence[int]] | None = None,
) -> list[DirectionLists]:
    """The lists of every direction of the protocol, of its first gallery, without re-ranking.

    ``queries``: rows of the queries by the names of the directions that are wanted, in place of chosen ones.
    """
    return [
        _direction(extracted, one, thumbnails, seed, None if queries is None else queries[one.name])
        for one in extracted.protocol.directions
        if queries is None or one.name in queries
    ]


def _direction(
    extracted: Extracted,
    direction: Direction,
    thumbnails: Thumbnails,
    seed: int,
    queries: Sequence[int] | None,
) -> DirectionLists:
    items = extracted.items
    ids = np.array([item[1] for item in items], dtype=np.int64)
    cams = np.array([item[2] for item in items], dtype=np.int64)
    protocol = extracted.protocol

    def side(index: npt.NDArray[np.int64]) -> Side:
        return Side(extracted.features[index], ids[index], cams[index])

    query, gallery = side(direction.query), side(direction.gallery)
    plain = replace(extracted.options, rerank=None)
    ranking = rank(query, gallery, options=plain, removal=protocol.removal, cmc=protocol.cmc)
    aps = 100.0 * ranking.queries.average_precision
    paths = [items[i][0] for i in direction.query], [items[i][0] for i in direction.gallery]
    chosen = chosen_queries(aps, query.ids, seed=seed) if queries is None else [("named", i) for i in queries]
    return DirectionLists(
        direction.name,
        [_list(kind, row, ranking, (query.ids, gallery.ids), paths, thumbnails) for kind, row in chosen],
        float(np.nanmean(aps)) if not np.isnan(aps).all() else math.nan,
        paths[0],
        aps.tolist(),
        int(np.isnan(aps).sum()),
        len(direction.galleries),
    )


def chosen_queries(
    aps: npt.NDArray[np.float64], ids: npt.NDArray[np.int64], *, count: int = QUERIES, seed: int = 0
) -> list[tuple[str, int]]:
    """``(kind, row)`` of the ``count`` best, worst and some random queries, at most one of an identity in each kind.

    Queries without a correct image have no AP and are not chosen; none is chosen twice.
    """
    valid = np.flatnonzero(~np.isnan(aps))
    order = valid[np.argsort(-aps[valid], kind="stable")]
    mixed = np.random.default_rng(seed).permutation(valid)
    found: list[tuple[str, int]] = []
    for kind, rows in (("best", order), ("worst", order[::-1]), ("random", mixed)):
        taken = {row for _, row in found}
        seen: dict[int, int] = {}
        for row in rows.tolist():
            if row not in taken and len(seen) < count:
                seen.setdefault(int(ids[row]), row)
        found += [(kind, row) for row in seen.values()]
    return found


def _list(
    kind: str,
    row: int,
    ranking: Ranking,
    ids: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    paths: tuple[Sequence[str], Sequence[str]],
    thumbnails: Thumbnails,
) -> RankList:
    distances, hidden = ranking.row(row)
    results: list[Result] = []
    ranks: list[int] = []
    place = 0
    for image in np.argsort(distances, kind="stable").tolist():
        correct = bool(ids[1][image] == ids[0][row])
        if not hidden[image]:
            place += 1
            ranks += [place] if correct else []
        if place < LENGTH if hidden[image] else place <= LENGTH:
            number = None if hidden[image] else place
            path = paths[1][image]
            results.append(
                Result(path, thumbnails(path), number, correct, _similarity(ranking, distances[image]))
            )
    removed = [one for one in results if one.rank is None][LENGTH:]  # a long row of these says nothing more
    ap = 100.0 * float(ranking.queries.average_precision[row])
    path = paths[0][row]
    shown = [one for one in results if not any(one is other for other in removed)]
    return RankList(kind, thumbnails(path), path, ap, ranks, shown)


def _similarity(ranking: Ranking, distance: float) -> float:
    """The cosine, or the distance of another metric."""
    return 1.0 - float(distance) if ranking.metric == "cosine" else float(distance)
