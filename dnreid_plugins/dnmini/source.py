"""The pre-training source: other vehicles than DNMini's, by day only, labelled with coarse attributes.

It plays the role of ImageNet: general knowledge of vehicles, no identity of DNMini, no night image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..functional.types import Domain
from . import identity as names
from .canvas import HEIGHT, WIDTH
from .identity import Identity
from .parallel import map_in_processes
from .wild import identity as wild_names
from .wild.identity import WildIdentity
from .worlds import WORLDS

IGNORED = -100
"""Label of an attribute that a vehicle does not have (the tone of no stripe); cross entropy skips it."""

# attribute of `Identity` -> its values; label = position in the list
COARSE_ATTRIBUTES: dict[str, Sequence[object]] = {
    "body": names.BODIES,
    "paint": names.PAINTS,
    "two_tone": names.TWO_TONES,
    "stripe": names.STRIPES,
    "stripe_tone": names.TONES,
    "num_windows": (1, 2, 3, 4, 5, 6),
    "tint": names.TINTS,
    "roof": names.ROOFS,
}
#: The same of each world.
ATTRIBUTES: dict[str, dict[str, Sequence[object]]] = {
    "dnmini": COARSE_ATTRIBUTES,
    "wild": {
        "body": wild_names.BODIES,
        "paint": wild_names.PAINTS,
        "roof": wild_names.ROOFS,
        "skirt": wild_names.SKIRTS,
        "decal": wild_names.DECALS,
        "decal_colour": wild_names.DECAL_COLOURS,
        "bonnet": wild_names.BONNETS,
        "load": wild_names.LOADS,
    },
}
#: attribute -> the one that it describes; where that is "none", it applies to nothing.
DESCRIBES = {"stripe_tone": "stripe", "decal_colour": "decal"}


@dataclass(frozen=True)
class SourceSet:
    """``images``: ``(N, 80, 128, 3)`` uint8 RGB. ``labels``: ``(N, A)`` int64, one column per entry of the world's
    ``ATTRIBUTES``, ``IGNORED`` where it does not apply. ``identities``: the vehicles, image ``i`` shows
    ``identities[i // images_per_id]``."""

    images: np.ndarray
    labels: np.ndarray
    identities: tuple[Any, ...]


def coarse_labels(
    identity: Identity | WildIdentity, attributes: dict[str, Sequence[object]] = COARSE_ATTRIBUTES
) -> list[int]:
    """One label per entry of ``attributes``."""
    return [
        IGNORED
        if getattr(identity, DESCRIBES.get(name, ""), "") == "none"
        else list(values).index(getattr(identity, name))
        for name, values in attributes.items()
    ]


def source_set(
    num_ids: int, images_per_id: int, seed: int, *, world: str = "dnmini", workers: int | None = None
) -> SourceSet:
    """Render ``num_ids`` vehicles of the source half of a world's attribute space, ``images_per_id`` day views each.

    A function of all arguments but ``workers``. About 3 ms per image and core in the first world, 15 ms in the second,
    30 KB each in memory.
    """
    if num_ids < 1 or images_per_id < 1:
        raise ValueError(f"num_ids and images_per_id must be >= 1, got {num_ids} and {images_per_id}")
    identities = WORLDS[world].identities(count=num_ids, seed=seed, half=1)
    tasks = [(world, identity, index, images_per_id, seed) for index, identity in enumerate(identities)]
    images = np.empty((num_ids, images_per_id, HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index, views in enumerate(map_in_processes(_render_views, tasks, workers=workers)):
        images[index] = views
    each = [coarse_labels(identity, ATTRIBUTES[world]) for identity in identities]
    labels = np.repeat(each, images_per_id, axis=0)
    return SourceSet(
        images=images.reshape(-1, HEIGHT, WIDTH, 3),
        labels=labels.astype(np.int64),
        identities=tuple(identities),
    )


def _render_views(world: str, identity: Any, index: int, images_per_id: int, seed: int) -> np.ndarray:
    generators = (np.random.default_rng([seed, 2, index, view]) for view in range(images_per_id))
    return np.stack([WORLDS[world].view(identity, rng, Domain.DAY) for rng in generators])
