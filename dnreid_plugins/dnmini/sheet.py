"""A contact sheet: an overview of a world's images."""

from __future__ import annotations

import numpy as np
from PIL import Image

from ..functional.types import Domain
from .worlds import WORLDS

GAP = 4


def contact_sheet(*, seed: int, num_ids: int = 8, views: int = 3, world: str = "dnmini") -> Image.Image:
    """One row per vehicle of a world: ``views`` pictures by day, then as many by night, with white gaps."""
    rows, renderer = [], WORLDS[world]
    for index, identity in enumerate(renderer.identities(count=num_ids, seed=seed, half=0)):
        halves = []
        for domain in Domain:
            pictures = [
                renderer.view(identity, np.random.default_rng([seed, int(domain), index + 1, view]), domain)
                for view in range(views)
            ]
            halves.append(np.pad(np.concatenate(pictures, axis=1), _gaps(right=GAP), constant_values=255))
        rows.append(np.pad(np.concatenate(halves, axis=1), _gaps(bottom=GAP), constant_values=255))
    return Image.fromarray(np.concatenate(rows, axis=0)[:-GAP, :-GAP])


def _gaps(*, right: int = 0, bottom: int = 0) -> tuple[tuple[int, int], ...]:
    return ((0, bottom), (0, right), (0, 0))
