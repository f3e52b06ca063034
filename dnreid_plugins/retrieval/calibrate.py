"""Find the similarity above which images are of the same vehicle, from pairs that are known to be or not to be."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..data.errors import DataError
from ..functional.ranking.verification import (
    certifiable_rate,
    clopper_pearson,
    identity_bootstrap,
    threshold_at,
)
from ..functional.types import Domain
from .pair_scores import EDGES, PairScores, listed_pairs
from .sources import beside, domain_word, read_table
from .threshold import ACROSS, Direction, Threshold

if TYPE_CHECKING:
    from .matcher import Matcher

logger = logging.getLogger(__name__)

#: The rates of the curve that is kept, as far as there are pairs for them.
RATES = (1e-4, 1e-3, 1e-2)
SAME = {
    **dict.fromkeys(("1", "true", "yes", "same"), True),
    **dict.fromkeys(("0", "false", "no", "different"), False),
}
WORDS = {ACROSS: "across domains", "day": "by day", "night": "by night"}


def calibrate(scores: Mapping[str, PairScores], *, fingerprint: str, rate: float) -> Threshold:
    """The threshold of each kind of pairs that has enough of them.

    The interval of the rate is the bootstrap over identities where they are known, and never narrower than the exact
    binomial one, which alone is used for listed pairs.

    Raises:
        ValueError: ``rate`` is not between 0 and 1, or no kind has enough pairs for it.
    """
    if not 0 < rate < 1:
        raise ValueError(f"The false match rate is {rate}; give a number between 0 and 1, such as 0.001.")
    directions, lacking = {}, []
    for kind, one in scores.items():
        least = certifiable_rate(one.total)
        if least > rate or not len(one.positive):
            lacking.append(
                f"{one.total} pairs of different and {len(one.positive)} of the same vehicle {WORDS[kind]} can "
                f"certify a false match rate of {least:.2g}"
            )
        else:
            directions[kind] = _direction(one, rate)
    if not directions:
        reason = "; ".join(lacking) or "There is no pair of the same and none of different vehicles"
        raise ValueError(
            f"{reason}, while {rate:g} is wanted; give more pairs or a higher --false-match-rate."
        )
    for text in lacking:
        logger.warning("%s at 95 %% confidence, so there is no threshold of their own for them.", text)
    return Threshold(fingerprint, rate, directions)


def _direction(one: PairScores, rate: float) -> Direction:
    value, accepted = threshold_at(one.negative, one.total, rate)
    interval = clopper_pearson(accepted, one.total)
    if one.identities is not None and one.count_a is not None:
        boot = identity_bootstrap(one.identities[:accepted], one.count_a, one.count_b)
        interval = min(interval[0], boot[0]), max(interval[1], boot[1])
    curve = []
    for other in sorted({*RATES, rate}):
        if other <= rate or int(other * one.total) < len(one.negative):
            at, found = threshold_at(one.negative, one.total, other)
            curve.append((found / one.total, _share(one, at), at))
    known = one.count_a if one.count_b is None or one.count_a is None else one.count_a + one.count_b
    return Direction(
        value=value,
        false_match_rate=accepted / one.total,
        interval=interval,
        true_match_rate=_share(one, value),
        pairs_positive=len(one.positive),
        pairs_negative=one.total,
        identities=0 if known is None else int((known > 0).sum()),
        histogram={
            "edges": EDGES.round(6).tolist(),
            "positive": one.histogram[0].tolist(),
            "negative": one.histogram[1].tolist(),
        },
        roc=tuple(curve),
    )


def _share(one: PairScores, value: float) -> float:
    return float((one.positive >= np.float32(value)).mean())


@dataclass(frozen=True)
class ListedPair:
    """A line of a table of pairs."""

    paths: tuple[str, str]
    domains: tuple[Domain, Domain]
    same: bool


def read_pairs(table: str | Path) -> list[ListedPair]:
    """The pairs of a CSV file with the columns ``path_a``, ``domain_a``, ``path_b``, ``domain_b``, ``same``.

    Raises:
        DataError: the table is wrong; the message names the line.
    """
    table, pairs = Path(table), []
    for number, row in read_table(table, needed=("path_a", "domain_a", "path_b", "domain_b", "same")):
        same = row["same"].strip().lower()
        if same not in SAME:
            raise DataError(f"table {str(table)!r}, line {number}: same is {same[:40]!r}; write 1 or 0")
        domains = [
            Domain.named(domain_word(row[f"domain_{side}"].strip(), table, number) or "") for side in "ab"
        ]
        paths = (beside(table, row["path_a"]), beside(table, row["path_b"]))
        pairs.append(ListedPair(paths, (domains[0], domains[1]), SAME[same]))
    return pairs


def scores_of_pairs(matcher: Matcher, pairs: Sequence[ListedPair]) -> dict[str, PairScores]:
    """Similarities of listed pairs by their kind; each image is embedded once.

    Raises:
        DataError: an image cannot be read.
    """
    images = sorted({image for pair in pairs for image in zip(pair.paths, pair.domains)})
    place = {image: row for row, image in enumerate(images)}
    features = matcher.embed([path for path, _ in images], [d for _, d in images], progress=True).numpy()
    sides = [np.array([place[pair.paths[s], pair.domains[s]] for pair in pairs]) for s in (0, 1)]
    values = np.einsum("pd,pd->p", features[sides[0]], features[sides[1]]).clip(-1, 1)
    kinds = np.array([ACROSS if a != b else a.word for a, b in (pair.domains for pair in pairs)])
    same = np.array([pair.same for pair in pairs], dtype=bool)
    return {str(kind): listed_pairs(values[kinds == kind], same[kinds == kind]) for kind in np.unique(kinds)}
