"""Similarities of all pairs of labelled images, or of listed pairs, reduced to what a threshold needs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..functional.types import Domain
from .threshold import ACROSS, WITHIN_DAY, WITHIN_NIGHT

logger = logging.getLogger(__name__)

EDGES = np.linspace(-1.0, 1.0, 101)
#: Images of a domain that are compared; of more, evenly chosen ones are.
IMAGES = 10_000
_BLOCK = 1024
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class PairScores:
    """The pairs of one kind.

    Attributes:
        positive: similarities of the pairs of one identity.
        negative: the highest similarities of pairs of two identities, highest first.
        total: number of those pairs.
        identities: ``(len(negative), 2)`` their identities; None where none are known.
        count_a, count_b: images per identity, see `identity_bootstrap`.
        histogram: counts of the similarities in `EDGES`, positive and negative.
    """

    positive: Floats
    negative: Floats
    total: int
    histogram: tuple[Ints, Ints]
    identities: Ints | None = None
    count_a: Ints | None = None
    count_b: Ints | None = None


def listed_pairs(scores: Floats, same: NDArray[np.bool_]) -> PairScores:
    """Pairs that a table lists, ``(P,)`` each."""
    positive, negative = scores[same], scores[~same]
    histogram = np.histogram(positive, EDGES)[0], np.histogram(negative, EDGES)[0]
    return PairScores(positive, np.sort(negative)[::-1], len(negative), histogram)


def all_pairs(
    features: Floats, ids: NDArray[np.str_], domains: Ints, *, rate: float
) -> dict[str, PairScores]:
    """Pairs of all labelled images by their kind; kinds without pairs of both sorts are left out.

    Args:
        features: ``(N, D)`` unit rows.
        ids: ``(N,)`` identities, the same names in both domains; "" = unknown, such an image is left out.
        domains: ``(N,)``.
        rate: the highest rate of false matches that will be asked for.
    """
    codes = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    rows = {domain: _chosen(np.flatnonzero((domains == domain) & (ids != "")), domain) for domain in Domain}
    day, night = rows[Domain.DAY], rows[Domain.NIGHT]
    found = {
        ACROSS: _pairs(features, codes, day, night, rate),
        WITHIN_DAY: _pairs(features, codes, day, None, rate),
        WITHIN_NIGHT: _pairs(features, codes, night, None, rate),
    }
    return {kind: one for kind, one in found.items() if len(one.positive) and one.total}


def _chosen(rows: Ints, domain: Domain) -> Ints:
    if len(rows) <= IMAGES:
        return rows
    logger.info("%d of the %d %s images are compared, evenly chosen.", IMAGES, len(rows), domain.word)
    return rows[np.linspace(0, len(rows) - 1, IMAGES).astype(np.int64)]


def _pairs(features: Floats, codes: Ints, left: Ints, right: Ints | None, rate: float) -> PairScores:
    others = left if right is None else right
    most = len(left) * len(others)
    keep = int(rate * most) + 1
    positive: list[Floats] = []
    negative, identities = np.empty(0, np.float32), np.empty((0, 2), np.int64)
    total, counts = 0, (np.zeros(len(EDGES) - 1, np.int64), np.zeros(len(EDGES) - 1, np.int64))
    for scores, same, use, names in _blocks(features, codes, left, others, within=right is None):
        true, false = scores[same & use], scores[~same & use]
        positive.append(true)
        total += len(false)
        for part, count in zip((true, false), counts):
            count += np.histogram(part, EDGES)[0]
        places = np.argwhere(~same & use)
        negative = np.concatenate([negative, false])
        identities = np.concatenate(
            [identities, np.stack([names[0][places[:, 0]], names[1][places[:, 1]]], axis=1)]
        )
        if len(negative) > 2 * keep:
            best = np.argpartition(-negative, keep)[:keep]
            negative, identities = negative[best], identities[best]
    order = np.argsort(-negative, kind="stable")[:keep]
    per_identity = [
        np.bincount(codes[rows], minlength=int(codes.max(initial=0)) + 1) for rows in (left, others)
    ]
    return PairScores(
        positive=np.concatenate([np.empty(0, np.float32), *positive]),
        negative=negative[order],
        total=total,
        histogram=counts,
        identities=identities[order],
        count_a=per_identity[0],
        count_b=None if right is None else per_identity[1],
    )


def _blocks(
    features: Floats, codes: Ints, left: Ints, right: Ints, *, within: bool
) -> Iterator[tuple[Floats, NDArray[np.bool_], NDArray[np.bool_], tuple[Ints, Ints]]]:
    """Similarities ``(b, R)``, which are of one identity, which count, and the identities of both sides."""
    gallery = np.ascontiguousarray(features[right])
    place = np.arange(len(right))
    for start in range(0, len(left), _BLOCK):
        rows = left[start : start + _BLOCK]
        scores = np.clip(features[rows] @ gallery.T, -1.0, 1.0)
        same = codes[rows, None] == codes[right][None]
        mine = np.arange(start, start + len(rows))
        use = mine[:, None] < place[None] if within else np.ones_like(same)
        yield scores, same, use, (codes[rows], codes[right])
