"""The cameras of a rendering: where each hangs, its lens, its colours and how it compresses; what a vehicle passes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...functional.types import Domain
from .rays import View, look
from .solids import Array, Solid

WIDTH, HEIGHT = 128, 80  # pixels of a finished picture
SAMPLES = (160, 100)  # rays
CAMERAS = 8  # of a rendering
PASSED = 4  # cameras that see a vehicle by day, and as many by night


@dataclass(frozen=True, eq=False)
class Camera:
    """A fixed camera beside the road. Angles in radians, lengths in metres.

    ``crop``: how much its detector leaves around a vehicle, a share of the vehicle's size. ``detail``: pixels of the
    vehicle against those of a finished picture, below 1 for a far one. ``blur``: of the lens, pixels. ``noise``: 1 is
    full scale. ``shading``: darkening of the corners. ``contrast``: exponent. ``colours``: ``(3, 3)`` response.
    ``quality``: of the JPEG.
    """

    azimuth: float
    elevation: float
    distance: float
    roll: float
    crop: float
    detail: float
    blur: float
    noise: float
    shading: float
    contrast: float
    colours: Array
    quality: int


def camera_of(seed: int, number: int) -> Camera:
    """Camera ``number`` of the rendering ``seed``."""
    rng = np.random.default_rng([seed, 8, number])
    behind = math.pi * (number % 2)
    side = 1.0 if number % 4 < 2 else -1.0
    mixed = np.eye(3) + rng.normal(0.0, 0.035, (3, 3))
    mixed *= rng.uniform(0.90, 1.10, (3, 1)) / mixed.sum(axis=1, keepdims=True)
    return Camera(
        azimuth=behind + side * math.radians(rng.uniform(38.0, 72.0)),
        elevation=math.radians(rng.uniform(7.0, 24.0)),
        distance=float(rng.uniform(8.0, 20.0)),
        roll=math.radians(rng.normal(0.0, 1.5)),
        crop=float(rng.uniform(0.02, 0.14)),
        detail=float(rng.uniform(0.55, 1.0)),
        blur=float(rng.uniform(0.3, 0.9)),
        noise=float(rng.uniform(0.006, 0.016)),
        shading=float(rng.uniform(0.0, 0.35)),
        contrast=float(rng.uniform(0.85, 1.15)),
        colours=mixed.astype(np.float32),
        quality=int(rng.integers(38, 88)),
    )


def camera_number(seed: int, domain: Domain, identity: int, view: int) -> int:
    """Which camera takes picture ``view`` of a vehicle: of the four by day, two see it by night as well."""
    order = np.random.default_rng([seed, 9, identity]).permutation(CAMERAS)
    return int(order[view % PASSED + (PASSED // 2 if domain == Domain.NIGHT else 0)])


def aim(camera: Camera, solids: list[Solid], rng: np.random.Generator) -> View:
    """The camera's view of the vehicle ``solids``, cut out as a detector would: not always well."""
    eye, right, up, ahead = look(
        camera.azimuth + rng.normal(0.0, math.radians(6.0)),
        max(math.radians(4.0), camera.elevation + rng.normal(0.0, math.radians(1.5))),
        camera.distance * rng.uniform(0.85, 1.2),
        camera.roll,
        (rng.uniform(-0.4, 0.4), rng.uniform(-0.3, 0.3), 0.7),
    )
    whole = View(eye, right, up, ahead, (-1.0, 1.0, -1.0, 1.0), SAMPLES)
    flat = np.concatenate([whole.flat(solid.corners) for solid in solids])
    (left, bottom), (rightmost, top) = flat.min(axis=0).tolist(), flat.max(axis=0).tolist()
    wide, high = rightmost - left, top - bottom
    room = camera.crop + rng.normal(0.0, 0.035, 4)
    left, rightmost = left - room[0] * wide, rightmost + room[1] * wide
    bottom, top = bottom - room[2] * high, top + room[3] * high
    wide, high = rightmost - left, top - bottom
    missing = max(0.0, 1.25 * high - wide) / 2  # a picture much taller than wide is widened
    window = (left - missing, rightmost + missing, bottom, top)
    return View(eye, right, up, ahead, window, SAMPLES)
