"""A gallery: unit features with the image, domain and identity of each, searched for the most similar ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..data.domain_images import as_domains
from ..functional.ranking.nearest import Candidates, Matrix, Rows, best_rows
from ..functional.types import Domain
from . import backends, store
from .additions import Addition, entries_of, plan
from .backends import KINDS, Kind
from .writer import write_rows

if TYPE_CHECKING:
    from .matcher import Matcher


class Index:
    """Features of gallery images, in memory (`build`) or memory-mapped from a folder (`load`).

    Attributes:
        features: ``(N, D)`` float32 unit rows.
        entries: the image of each row, see `Entry`.
        fingerprint: of the model that made the features, see `Matcher`.
        kind: "flat" compares all rows and is exact; "ivf" (inverted lists) and "hnsw" (graph) look at a part.
        run: folder of the run; None if it was a config by its name.
        weights: path of the checkpoint.
        folder: where it was loaded from.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        entries: Sequence[store.Entry],
        *,
        fingerprint: str,
        kind: Kind = "flat",
        run: Path | None = None,
        weights: str = "",
        folder: Path | None = None,
        structure: Any = None,
    ) -> None:
        if kind not in KINDS:
            raise ValueError(f"The kind of an index is {kind!r}; choose {', '.join(KINDS)}.")
        self.features, self.entries, self.fingerprint, self.kind = features, list(entries), fingerprint, kind
        self.run, self.weights, self.folder, self._structure = run, weights, folder, structure

    # ---------------------------------------------------------------- making and keeping

    @classmethod
    def empty(cls, matcher: Matcher, *, kind: Kind = "flat") -> Index:
        """A gallery of no image, for features of ``matcher``."""
        return cls(
            np.empty((0, matcher.dim), np.float32),
            [],
            fingerprint=matcher.fingerprint,
            kind=kind,
            run=matcher.run,
            weights=str(matcher.weights),
        )

    @classmethod
    def build(
        cls,
        matcher: Matcher,
        images: Sequence[str | Path],
        domain: str | int | Sequence[str | int],
        *,
        ids: Sequence[str] | None = None,
        kind: Kind = "flat",
    ) -> Index:
        """A gallery in memory; `retrieval.gallery.write_gallery` writes one that does not fit.

        Args:
            images: paths; one that comes twice counts once.
            domain: of all images, or one of each.
            ids: identity of each image, "" = unknown.

        Raises:
            DataError: an image cannot be read.
        """
        index = cls.empty(matcher, kind=kind)
        index.add(matcher, images, domain, ids=ids)
        return index

    def add(
        self,
        matcher: Matcher,
        images: Sequence[str | Path],
        domain: str | int | Sequence[str | int],
        *,
        ids: Sequence[str] | None = None,
    ) -> Addition:
        """Put more images in; what was done, see `plan` for images that are there already.

        Raises:
            ValueError: the gallery is of another model.
            DataError: an image cannot be read.
        """
        self.refuse_another(matcher)
        entries = entries_of(images, as_domains(domain, len(images)).tolist(), ids)
        what = plan(self.entries, entries)
        new = matcher.embed([one.path for one in what.new], [one.domain for one in what.new]).numpy()
        old = self.features if what.keeps_all else self.features[what.kept]
        features = np.concatenate([old, new])
        grows = what.keeps_all and len(self) and self._structure is not None
        self._structure = backends.grown(self.kind, self.structure, new) if grows else None
        self.features = features
        self.entries = [*what.kept_entries, *what.new]
        self._forget()
        return what

    def save(self, folder: str | Path) -> None:
        """Write the gallery to a new or empty folder, or in place of the gallery there.

        Raises:
            ValueError: the folder is something else, or another process writes it.
            OSError: it cannot be written; what was there is as it was.
        """
        step = backends.BLOCK
        starts = range(0, len(self), step)
        blocks = ((np.arange(s, min(s + step, len(self))), self.features[s : s + step]) for s in starts)
        with store.writing(folder) as path:
            write_rows(path, self.entries, blocks, like=self, grown=self._structure is not None)
        self.folder = Path(folder)

    @classmethod
    def load(cls, folder: str | Path, matcher: Matcher | None = None) -> Index:
        """A saved gallery.

        Raises:
            ValueError: there is none, it is damaged, or it is of another model than ``matcher``.
        """
        stored = store.read(folder)
        about = stored.manifest
        run, weights = (store.absolute(about[name], folder) for name in ("run", "weights"))
        index = cls(
            stored.features,
            stored.entries,
            fingerprint=about["fingerprint"],
            kind=about["kind"],
            run=Path(run) if run else None,
            weights=weights,
            folder=Path(folder),
            structure=stored.search,
        )
        if matcher is not None:
            index.refuse_another(matcher)
        return index

    def refuse_another(self, matcher: Matcher) -> None:
        """
        Raises:
            ValueError: the features are not those of ``matcher``.
        """
        if matcher.fingerprint != self.fingerprint:
            raise ValueError(
                f"The gallery{f' {self.folder}' if self.folder else ''} was made by another model "
                f"({self.fingerprint}) than {matcher.weights} ({matcher.fingerprint}), so their features cannot be "
                "compared; name the run of the gallery or build it again."
            )

    # ---------------------------------------------------------------- what is in it

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def paths(self) -> list[str]:
        """Absolute path of each image."""
        return [entry.path for entry in self.entries]

    @cached_property
    def ids(self) -> list[str]:
        """Identity of each image, "" = unknown."""
        return [entry.id for entry in self.entries]

    @cached_property
    def domains(self) -> NDArray[np.int64]:
        """``(N,)`` domain of each image."""
        return np.array([entry.domain for entry in self.entries], dtype=np.int64)

    @cached_property
    def _order(self) -> Rows:
        """Place of each row when the images are sorted by path."""
        place = np.empty(len(self), dtype=np.int64)
        place[sorted(range(len(self)), key=self.paths.__getitem__)] = np.arange(len(self))
        return place

    def _forget(self) -> None:
        for name in ("paths", "ids", "domains", "_order"):
            self.__dict__.pop(name, None)

    # ---------------------------------------------------------------- searching

    def search(
        self, features: NDArray[np.float32] | Tensor, k: int = 10, *, domain: str | int | None = None
    ) -> tuple[Matrix, Rows]:
        """The ``k`` most similar images: scores ``(Q, k)`` float32, cosines in [-1, 1], and rows ``(Q, k)``.

        Best first, exact ties by path. ``k`` is at most the number of images. A query for which an approximate index
        finds fewer is compared with all.

        Args:
            features: ``(Q, D)`` unit rows, as `Matcher.embed` gives them.
            domain: only images of this domain.

        Raises:
            ValueError: features of another dimension, or ``k`` below 1.
        """
        queries = np.ascontiguousarray(features, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.features.shape[1]:
            raise ValueError(
                f"The features have shape {queries.shape}; the gallery needs (Q, {self.features.shape[1]})."
            )
        if k < 1:
            raise ValueError(f"k is {k}; ask for at least 1 match.")
        allowed = None if domain is None else self.domains == int(Domain.named(domain))
        total = len(self) if allowed is None else int(allowed.sum())

        def every(part: Matrix, count: int) -> tuple[Matrix, Rows]:
            return backends.all_rows(self.features, part, count, allowed)

        def some(part: Matrix, count: int) -> tuple[Matrix, Rows]:
            return backends.ask(self.kind, self.structure, part, count, allowed)

        def best(part: Matrix, candidates: Candidates, *, exact: bool) -> tuple[Matrix, Rows]:
            known = partial(best_rows, order=self._order, total=total, candidates=candidates, exact=exact)
            return known(part, np.asarray(self.features), k)

        if self.kind == "flat":
            return best(queries, every, exact=True)
        scores, rows = best(queries, some, exact=False)
        short = np.flatnonzero((rows < 0).any(axis=1))
        if len(short):
            scores[short], rows[short] = best(queries[short], every, exact=True)
        return scores, rows

    @property
    def structure(self) -> Any:
        """The faiss index of an approximate kind, read or built when it is first needed."""
        if isinstance(self._structure, Path):
            self._structure = backends.read(self._structure)
        if self._structure is None:
            self._structure = backends.build(self.kind, self.features)
        return self._structure
