"""The renderers by name: what a set, a contact sheet and pre-training need of one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..functional.types import Domain
from .identity import Identity, caption, sample_identities
from .imaging import jpeg_bytes
from .render import render
from .wild.identity import sample_wild_identities, wild_caption
from .wild.render import any_camera, wild_jpeg


@dataclass(frozen=True)
class World:
    """One renderer.

    ``version`` goes up when its pictures change. ``identities(count=, seed=, half=)``: vehicles of one half of the
    space of attributes. ``view(vehicle, generator, domain)``: a ``(80, 128, 3)`` uint8 RGB picture. ``file(vehicle,
    seed, domain, raw id, view)``: the JPEG of a set, a function of its arguments. ``caption(vehicle)``: a sentence.
    """

    version: int
    identities: Callable[..., list[Any]]
    view: Callable[[Any, np.random.Generator, Domain], np.ndarray]
    file: Callable[[Any, int, Domain, int, int], bytes]
    caption: Callable[[Any], str]


def _file(identity: Identity, seed: int, domain: Domain, raw_id: int, view: int) -> bytes:
    """Each image has its own generator."""
    rng = np.random.default_rng([seed, int(domain), raw_id, view])
    return jpeg_bytes(render(identity, rng, domain), domain=domain, rng=rng)


WORLDS = {
    "dnmini": World(version=1, identities=sample_identities, view=render, file=_file, caption=caption),
    "wild": World(
        version=1, identities=sample_wild_identities, view=any_camera, file=wild_jpeg, caption=wild_caption
    ),
}
