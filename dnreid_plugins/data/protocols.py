"""An evaluation protocol as a value object: queries, gallery, what is removed, the CMC rule.

Sources: datasets-and-protocols of the field; DN-348 and DN-Wild (DN-ReID), RegDB (ten trials).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

IndexArray = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Cmc = Literal["image", "identity"]


class ImageLabels(NamedTuple):
    """What a rule of removal sees of some images: identities ``(N,)`` int64 and cameras ``(N,)`` int64."""

    ids: IndexArray
    cams: IndexArray


#: ``rule(query, gallery)`` -> ``(Q, G)``, True for the gallery images that a query does not see. A protocol prints
#: the name of its rule.
Removal = Callable[[ImageLabels, ImageLabels], Mask]


def nothing(query: ImageLabels, gallery: ImageLabels) -> Mask:
    """Every query sees the whole gallery."""
    return np.zeros((len(query.ids), len(gallery.ids)), dtype=bool)


def camera_2_for_queries_of_camera_3(query: ImageLabels, gallery: ImageLabels) -> Mask:
    """The rule of SYSU-MM01: both cameras stand in the same room."""
    same: Mask = (query.cams[:, None] == 3) & (gallery.cams == 2)
    return same


def same_identity_and_camera(query: ImageLabels, gallery: ImageLabels) -> Mask:
    """The rule of LLCM and of fast-reid's person data sets."""
    same: Mask = (query.ids[:, None] == gallery.ids) & (query.cams[:, None] == gallery.cams)
    return same


@dataclass(frozen=True, eq=False)
class Direction:
    """One search direction.

    Attributes:
        name: ``"D2N"`` (day queries in a night gallery) or ``"N2D"``; a variant adds words to it, ``"N2D indoor"``
            (see `is_variant`).
        query: ``(Q,)`` int64, positions of the queries in the data set's ``test`` list.
        gallery: ``(G,)`` int64, positions of the gallery images; the first one where there are several.
        more_galleries: further galleries, each scored separately; the mean of all is reported.
    """

    name: str
    query: IndexArray
    gallery: IndexArray
    more_galleries: tuple[IndexArray, ...] = ()

    def __post_init__(self) -> None:
        for part in ("query", "gallery"):
            object.__setattr__(self, part, self._positions(part, getattr(self, part)))
        more = tuple(self._positions("gallery", one) for one in self.more_galleries)
        object.__setattr__(self, "more_galleries", more)

    def _positions(self, part: str, values: npt.ArrayLike) -> IndexArray:
        index = np.asarray(values, dtype=np.int64)
        if index.ndim != 1 or index.size == 0:
            raise ValueError(
                f"the {part} of direction {self.name} has shape {index.shape}; give at least one position"
            )
        return index

    @property
    def galleries(self) -> tuple[IndexArray, ...]:
        """All galleries."""
        return (self.gallery, *self.more_galleries)


@dataclass(frozen=True, eq=False)
class Protocol:
    """How a data set is scored.

    Attributes:
        name: data set, and trial if there are several.
        directions: one or two search directions over the same ``test`` list.
        removal: which gallery images a query does not see, see `Removal`.
        cmc: rank of the first correct image, or of the first correct *identity* (SYSU-MM01, LLCM).
        topk: ranks that are reported.
        repetitions: number of train/test splits, one model each, whose mean the field reports.
        note: what a reader of the result must know about the data, such as that it is a stand-in.
    """

    name: str
    directions: tuple[Direction, ...]
    removal: Removal = nothing
    cmc: Cmc = "image"
    topk: tuple[int, ...] = (1, 5, 10)
    repetitions: int = 1
    note: str = ""

    def __post_init__(self) -> None:
        if not callable(self.removal):
            raise ValueError(f"removal is {self.removal!r}; give a rule such as `nothing`, see `Removal`")
        if self.cmc not in ("image", "identity"):
            raise ValueError(f"cmc is {self.cmc!r}; choose 'image' or 'identity'")
        if not self.directions:
            raise ValueError(f"protocol {self.name} has no direction; give D2N, N2D or both")

    def __str__(self) -> str:
        sizes = ", ".join(
            f"{one.name} {one.query.size} queries, {one.gallery.size} in the gallery"
            + (f" (mean of {len(one.galleries)} galleries)" if one.more_galleries else "")
            for one in self.directions
        )
        removed = f"{self.removal.__name__.replace('_', ' ')} removed"
        text = f"{self.name}: {sizes}; {removed}; {self.cmc}-level CMC at {', '.join(map(str, self.topk))}"
        text += f"; one of {self.repetitions} repetitions" if self.repetitions > 1 else ""
        return text + (f"; {self.note}" if self.note else "")

    def __getitem__(self, name: str) -> Direction:
        for direction in self.directions:
            if direction.name == name:
                return direction
        known = ", ".join(one.name for one in self.directions)
        raise KeyError(f"protocol {self.name} has no direction {name!r}; it has {known}")


def is_variant(name: str) -> bool:
    """Whether a direction is a further view on another one ("N2D indoor", "D2N re-ranked"): it chooses no model."""
    return " " in name


def both_directions(
    name: str,
    domains: Iterable[int],
    *,
    is_query: Iterable[bool] | None = None,
    is_gallery: Iterable[bool] | None = None,
    topk: tuple[int, ...] = (1, 5, 10),
    repetitions: int = 1,
) -> Protocol:
    """D2N and N2D over one ``test`` list.

    Args:
        name: for the printed protocol.
        domains: ``(N,)`` domain of each test image.
        is_query: ``(N,)`` which images may be queries (DN-Wild's query list); None = all.
        is_gallery: ``(N,)`` which images are in the gallery; None = all.
        topk: ranks that are reported.
        repetitions: number of splits whose mean the field reports.

    Raises:
        ValueError: a direction would have no query or no gallery image.
    """
    domain = np.asarray(list(domains), dtype=np.int64)
    everything = np.ones(domain.shape, dtype=bool)
    query = everything if is_query is None else np.asarray(list(is_query), dtype=bool)
    gallery = everything if is_gallery is None else np.asarray(list(is_gallery), dtype=bool)
    day, night = domain == 0, domain == 1
    directions = (
        Direction("D2N", np.flatnonzero(day & query), np.flatnonzero(night & gallery)),
        Direction("N2D", np.flatnonzero(night & query), np.flatnonzero(day & gallery)),
    )
    return Protocol(name, directions, topk=topk, repetitions=repetitions)


def dn348_protocol(domains: Iterable[int], name: str = "DN-348") -> Protocol:
    """DN-348: every test image is a query of its domain, every test image of the other domain is gallery."""
    return both_directions(name, domains)


def dnwild_protocol(
    domains: Iterable[int],
    is_query: Iterable[bool],
    is_gallery: Iterable[bool],
    *,
    every_image: bool = False,
    name: str = "DN-Wild",
) -> Protocol:
    """DN-Wild: queries from the query list, the whole test list of the other domain is the gallery.

    ``every_image``: ``is_query`` is no query list but all test images, which the name says.
    """
    name += ", every test image a query" if every_image else ""
    return both_directions(name, domains, is_query=is_query, is_gallery=is_gallery)


def regdb_protocol(domains: Iterable[int], trial: int) -> Protocol:
    """RegDB: all against all in both directions; the field reports the mean of ten trials, one model each."""
    return both_directions(f"RegDB trial {trial}", domains, topk=(1, 5, 10, 20), repetitions=10)
