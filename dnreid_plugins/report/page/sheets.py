"""Contact sheets of the clusters of the last epoch, alone and with their partners in the other domain."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...functional.types import Domain
from .folder import ClusterRow
from .pictures import Thumbnail, Thumbnails

#: Clusters of each kind that are shown, images of each, and matched pairs.
LARGEST, RANDOM, IMAGES, PAIRS = 3, 3, 10, 6


@dataclass(frozen=True)
class Sheet:
    """Some images of one cluster."""

    domain: str
    cluster: int
    size: int
    identities: int | None
    pictures: list[Thumbnail]


@dataclass(frozen=True)
class Sheets:
    """The contact sheets of an epoch: clusters of each domain, matched pairs, and how many there are of all."""

    clusters: dict[str, list[Sheet]]
    pairs: list[tuple[Sheet, Sheet]]
    total: dict[str, int]
    outliers: dict[str, int]
    matched: int


def sheets(
    rows: Sequence[ClusterRow],
    paths: Sequence[str],
    identities: Sequence[str] | None,
    thumbnails: Thumbnails,
    *,
    seed: int = 0,
) -> Sheets:
    """The largest clusters of each domain, some at random, and some matched pairs.

    Args:
        rows: of ``clusters.csv``.
        paths: where the image of each row is now.
        identities: of the image of each row; None = not known.
    """
    members: dict[tuple[str, int], list[int]] = defaultdict(list)
    partners: dict[tuple[str, int], int] = {}
    outliers = Counter(row.domain for row in rows if row.cluster < 0)
    for place, row in enumerate(rows):
        if row.cluster >= 0:
            members[row.domain, row.cluster].append(place)
            if row.partner >= 0:
                partners[row.domain, row.cluster] = row.partner

    def sheet(key: tuple[str, int], images: int) -> Sheet:
        own = members[key]
        spread = [own[i] for i in np.unique(np.linspace(0, len(own) - 1, images).round().astype(int))]
        known = None if identities is None else len({identities[place] for place in own})
        return Sheet(*key, len(own), known, [thumbnails(paths[place]) for place in spread])

    generator = np.random.default_rng(seed)
    clusters, total = {}, {}
    for domain in (one.word for one in Domain):
        own = sorted((key for key in members if key[0] == domain), key=lambda key: (-len(members[key]), key))
        rest = own[LARGEST:]
        drawn = sorted(generator.permutation(len(rest))[:RANDOM].tolist())
        clusters[domain] = [sheet(key, IMAGES) for key in own[:LARGEST] + [rest[i] for i in drawn]]
        total[domain] = len(own)
    pairs = sorted(
        {(("day", day), ("night", night)) for (domain, day), night in partners.items() if domain == "day"}
        | {(("day", day), ("night", night)) for (domain, night), day in partners.items() if domain == "night"}
    )
    pairs = [pair for pair in pairs if all(key in members for key in pair)]
    drawn = sorted(generator.permutation(len(pairs))[:PAIRS].tolist())
    shown = [(sheet(pairs[i][0], IMAGES // 2), sheet(pairs[i][1], IMAGES // 2)) for i in drawn]
    return Sheets(clusters, shown, total, dict(outliers), len(pairs))
