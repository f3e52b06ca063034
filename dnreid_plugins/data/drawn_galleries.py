"""Protocols whose galleries are drawn: SYSU-MM01 and LLCM take one image per identity and camera, ten times."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..functional.types import Domain
from .items import DomainItem, domain_of
from .protocols import (
    Direction,
    IndexArray,
    Protocol,
    camera_2_for_queries_of_camera_3,
    same_identity_and_camera,
)

GALLERIES = 10
#: SYSU-MM01: what is searched -> cameras of the gallery.
SEARCHES = {"": (1, 2, 4, 5), " indoor": (1, 2)}
#: How many images of an identity each camera gives to a gallery.
SHOTS = {"": 1, " multi-shot": 10}


def draw_galleries(
    ids: npt.ArrayLike,
    cams: npt.ArrayLike,
    among: npt.ArrayLike,
    *,
    shots: int = 1,
    galleries: int = GALLERIES,
) -> tuple[IndexArray, ...]:
    """``shots`` images per identity and camera, gallery ``t`` by ``random.Random(t)``, t = 0, 1, ...

    One shot is what the released evaluation code of SYSU-MM01 and LLCM draws: ``random.seed(t)``, then
    ``random.choice(sorted(files))`` for identities ascending and in each of them cameras ascending. (Compared with
    Python's own ``random`` on 3.11; the stream is the same from 3.2 on.) Several shots are ``random.sample`` in the
    same order; the field's multi-shot draws come from no common stream. Fewer images than shots are all taken.

    Args:
        ids, cams: ``(N,)`` of the test images; those of one identity and camera are sorted by path.
        among: ``(M,)`` positions of the images that may be drawn.

    Returns:
        positions of each gallery, identities ascending, in each cameras ascending.
    """
    identity, camera = np.asarray(ids, dtype=np.int64), np.asarray(cams, dtype=np.int64)
    groups: dict[tuple[int, int], list[int]] = {}
    for place in np.sort(np.asarray(among, dtype=np.int64)):
        groups.setdefault((int(identity[place]), int(camera[place])), []).append(int(place))
    found = []
    for number in range(galleries):
        drawn = random.Random(number)
        chosen: list[int] = []
        for key in sorted(groups):
            images = groups[key]
            chosen += [drawn.choice(images)] if shots == 1 else drawn.sample(images, min(shots, len(images)))
        found.append(np.array(chosen, dtype=np.int64))
    return tuple(found)


def sysu_protocol(items: Sequence[DomainItem]) -> Protocol:
    """SYSU-MM01: all infrared images search ten drawn galleries of visible ones.

    ``"N2D"`` is the all search with one shot, which the field calls SYSU-MM01's result; ``indoor`` has only the
    galleries of cameras 1 and 2, ``multi-shot`` ten images per identity and camera. Queries of camera 3 do not see
    camera 2; a rank counts identities.
    """
    ids, cams, domains = _columns(items)
    query = np.flatnonzero(domains == Domain.NIGHT)
    directions = tuple(
        _drawn(f"N2D{search}{shot}", query, ids, cams, np.flatnonzero(np.isin(cams, cameras)), shots)
        for shot, shots in SHOTS.items()
        for search, cameras in SEARCHES.items()
    )
    rule = camera_2_for_queries_of_camera_3
    return Protocol("SYSU-MM01", directions, removal=rule, cmc="identity", topk=(1, 5, 10, 20))


def llcm_protocol(items: Sequence[DomainItem]) -> Protocol:
    """LLCM: every test image of a domain searches ten drawn galleries of the other one.

    Images of the same identity under the camera of the same number are removed; a rank counts identities.
    """
    ids, cams, domains = _columns(items)
    day, night = (np.flatnonzero(domains == domain) for domain in (Domain.DAY, Domain.NIGHT))
    directions = (
        _drawn("D2N", day, ids, cams, night, 1),
        _drawn("N2D", night, ids, cams, day, 1),
    )
    return Protocol("LLCM", directions, removal=same_identity_and_camera, cmc="identity", topk=(1, 5, 10, 20))


def _drawn(
    name: str, query: IndexArray, ids: IndexArray, cams: IndexArray, among: IndexArray, shots: int
) -> Direction:
    first, *more = draw_galleries(ids, cams, among, shots=shots)
    return Direction(name, query, first, tuple(more))


def _columns(items: Sequence[DomainItem]) -> tuple[IndexArray, IndexArray, IndexArray]:
    columns = [(int(item.pid), int(item.camid), int(domain_of(item))) for item in items]
    ids, cams, domains = np.array(columns, dtype=np.int64).reshape(-1, 3).T
    return ids, cams, domains
