"""What the pages show: a gallery with its model, the clusters of a run, and the queries of the moment."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...engine.cluster_file import NAME as CLUSTERS
from ...functional.types import Domain
from ...labels.corrections import CorrectionRow
from ...runtime.run_folder import CONFIG
from .. import store
from ..index import Index
from ..matcher import Matcher
from ..threshold import Threshold
from .clusters import ClusterTable, View
from .images import SIDES, jpeg
from .judgements import NAME, Action, CorrectionLog, rows_of, standing

#: Uploaded queries that are remembered, so that their matches can be looked at in other ways.
REMEMBERED = 64


@dataclass(frozen=True)
class Query:
    """An image that is searched for.

    Attributes:
        name: of the file.
        feature: ``(1, D)`` unit row.
        row: of the image in the gallery; None for an upload, whose copy is ``picture``.
    """

    name: str
    domain: Domain
    feature: NDArray[np.float32]
    row: int | None = None
    picture: bytes = b""


@dataclass(frozen=True)
class Match:
    """An image of the gallery that is similar to a query; ``accepted`` is None where no threshold is known."""

    row: int
    score: float
    accepted: bool | None


class Search:
    """A gallery and its model; one request at a time uses them."""

    def __init__(self, index: Index, matcher: Matcher, threshold: Threshold | None) -> None:
        self.index, self.matcher, self.threshold = index, matcher, threshold
        self._queries: OrderedDict[str, Query] = OrderedDict()
        self._guard = threading.Lock()

    def remember(self, name: str, image: Image.Image, domain: Domain) -> str:
        """Embed an upload; returns the token by which `recall` finds it."""
        with self._guard:
            feature = self.matcher.embed([image], domain).numpy()
            token = secrets.token_urlsafe(12)
            self._queries[token] = Query(name, domain, feature, picture=jpeg(image, SIDES["large"]))
            while len(self._queries) > REMEMBERED:
                self._queries.popitem(last=False)
        return token

    def recall(self, token: str) -> Query | None:
        """The query of a token, None if it was too long ago."""
        return self._queries.get(token)

    def of_row(self, row: int) -> Query:
        """An image of the gallery as a query; its feature is known already."""
        feature = np.array(self.index.features[row : row + 1], dtype=np.float32)
        return Query(self.index.paths[row], Domain(int(self.index.domains[row])), feature, row)

    def matches(self, query: Query, k: int, among: Domain | None) -> list[Match]:
        """The ``k`` most similar images, of one domain or of both; an image is no match of itself."""
        with self._guard:
            scores, rows = self.index.search(query.feature, k + (query.row is not None), domain=among)
        found = [
            (int(row), float(score))
            for row, score in zip(rows[0], scores[0])
            if row >= 0 and row != query.row
        ]
        return [Match(row, score, self._accepts(query, row, score)) for row, score in found[:k]]

    def _accepts(self, query: Query, row: int, score: float) -> bool | None:
        if self.threshold is None:
            return None
        return score >= self.threshold.of(query.domain, Domain(int(self.index.domains[row])))


class Clusters:
    """The clusters of a run and the corrections beside them."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.table = ClusterTable.read(run / CLUSTERS)
        self.log = CorrectionLog(run / NAME)
        self._seen: tuple[int, list[CorrectionRow], View] | None = None

    def now(self) -> tuple[int, list[CorrectionRow], View]:
        """The revision, what was said of each image, and the clusters that follow."""
        seen, actions = self._seen, self.log.actions
        if seen is None or seen[0] != len(actions):
            rows = rows_of(standing(actions))
            self._seen = seen = (len(actions), rows, self.table.view(rows))
        return seen

    def last(self) -> Action | None:
        """The action that "undo" takes back."""
        found = standing(self.log.actions)
        return found[-1] if found else None


@dataclass(frozen=True)
class Site:
    """Everything that is served; without a gallery nothing is searched, without clusters none are shown.

    Attributes:
        title: name of the folder.
    """

    title: str
    search: Search | None
    clusters: Clusters | None

    @classmethod
    def open(cls, folder: Path) -> Site:
        """A gallery with its run, or a run alone.

        Raises:
            ValueError: it is neither, or the gallery's run is missing or of another model.
        """
        folder = folder.resolve()
        if store.is_gallery(folder):
            index = Index.load(folder)
            if index.run is None:
                raise ValueError(
                    f"{folder} does not say of which run it is; build it again from a run's folder."
                )
            matcher = Matcher.load(index.run, weights=Path(index.weights).name if index.weights else None)
            index.refuse_another(matcher)
            search = Search(index, matcher, Threshold.load(folder))
            return cls(folder.name, search, cls._clusters(index.run))
        if not (folder / CONFIG).is_file() and not (folder / CLUSTERS).is_file():
            raise ValueError(
                f"{folder} is neither a gallery nor a run; make a gallery with `dnreid index`, or name the OUTPUT_DIR "
                "of a training."
            )
        clusters = cls._clusters(folder)
        if clusters is None:
            raise ValueError(f"{folder} has no {CLUSTERS} yet; wait for the first epoch, or name a gallery.")
        return cls(folder.name, None, clusters)

    @staticmethod
    def _clusters(run: Path) -> Clusters | None:
        return Clusters(run) if (run / CLUSTERS).is_file() else None
