"""What a search found, as values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..functional.types import Domain

if TYPE_CHECKING:
    from .index import Index


@dataclass(frozen=True)
class Match:
    """A gallery image that a query found.

    Attributes:
        row: its number in the gallery.
        path, domain, id: of the image; id is "" where none is known.
        score: cosine similarity in [-1, 1].
    """

    row: int
    path: str
    domain: Domain
    id: str
    score: float


@dataclass(frozen=True)
class Result:
    """One query and its matches, best first; ``path`` is "" for a picture in memory."""

    path: str
    domain: Domain
    matches: tuple[Match, ...]


def results_of(
    index: Index,
    names: Sequence[str],
    domains: Sequence[int],
    scores: NDArray[np.float32],
    rows: NDArray[np.int64],
) -> list[Result]:
    """Names and domains of the queries with what `Index.search` returned for them."""

    def match(row: int, score: float) -> Match:
        return Match(row, index.paths[row], Domain(int(index.domains[row])), index.ids[row], score)

    return [
        Result(name, Domain(domain), tuple(map(match, found.tolist(), values.tolist())))
        for name, domain, found, values in zip(names, domains, rows, scores)
    ]
