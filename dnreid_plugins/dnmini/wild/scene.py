"""What is around a vehicle in one picture: weather, light and traffic."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .bodies import build, frame_of
from .identity import WildIdentity, sample_wild_identity
from .solids import Array, Solid, block

#: Weather and how often it is, by day and by night.
WEATHER = ("clear", "overcast", "rain", "fog")
DAY_WEATHER, NIGHT_WEATHER = (0.50, 0.30, 0.12, 0.08), (0.40, 0.20, 0.30, 0.10)
STREET_LAMPS = ((1.0, 0.60, 0.20), (1.0, 0.86, 0.62), (0.92, 1.0, 0.96), (0.74, 0.90, 1.0))


@dataclass(frozen=True, eq=False)
class Lamp:
    """A light at ``place`` ``(3,)`` that gives ``power`` ``(3,)`` at one metre."""

    place: Array
    power: Array


@dataclass(frozen=True, eq=False)
class Scene:
    """Light in units of what a white surface reflects at noon.

    ``sun``: direction to it, ``sunlight`` and ``sky`` ``(3,)``: from there and from above; ``fog`` per metre and its
    colour ``haze``; ``wet`` 0..1 of the road; ``rain`` 0..1; ``lit``: of vehicles' lamps; ``from_camera``: light of
    traffic behind the camera; ``road``: reflected share; ``marks``: y of lines on the road; ``kerb``: y of its edge.
    """

    night: bool
    sun: Array
    sunlight: Array
    sky: Array
    fog: float
    haze: Array
    wet: float
    rain: float
    lit: float
    from_camera: float
    lamps: tuple[Lamp, ...]
    road: float
    marks: tuple[float, ...]
    kerb: float
    verge: Array
    pattern: Array


def _floats(*values: float) -> Array:
    return np.asarray(values, np.float32)


def sample_scene(rng: np.random.Generator, *, night: bool) -> Scene:
    """Weather, light and road of one picture."""
    weather = WEATHER[int(rng.choice(4, p=NIGHT_WEATHER if night else DAY_WEATHER))]
    turn, height = rng.uniform(0.0, 2.0 * math.pi), math.radians(rng.uniform(18.0, 65.0))
    sun = _floats(math.cos(height) * math.cos(turn), math.cos(height) * math.sin(turn), math.sin(height))
    tint = rng.uniform(0.94, 1.06, 3)
    if night:
        sunlight, sky = np.zeros(3), rng.uniform(0.004, 0.022) * np.array([0.8, 0.9, 1.15]) * tint
    elif weather == "clear":
        sunlight, sky = (
            rng.uniform(0.7, 1.25) * np.array([1.05, 1.0, 0.88]) * tint,
            np.array([0.27, 0.33, 0.42]),
        )
    else:
        sunlight, sky = (
            rng.uniform(0.02, 0.2) * tint,
            rng.uniform(0.45, 0.8) * np.array([0.96, 1.0, 1.04]) * tint,
        )
    foggy = weather == "fog"
    return Scene(
        night=night,
        sun=sun,
        sunlight=sunlight.astype(np.float32),
        sky=sky.astype(np.float32),
        fog=float(rng.uniform(0.015, 0.045)) if foggy else float(rng.uniform(0.0, 0.006)),
        haze=(sky * (rng.uniform(1.5, 3.5) if night else 0.95)).astype(np.float32),
        wet=float(rng.uniform(0.45, 1.0)) if weather == "rain" else 0.0,
        rain=float(rng.uniform(0.2, 1.0)) if weather == "rain" else 0.0,
        lit=float(rng.uniform(0.5, 1.0)) if night else 0.25 * (weather in ("rain", "fog")),
        from_camera=float(rng.uniform(0.0, 0.10)) if night else 0.0,
        lamps=_street_lamps(rng) if night else (),
        road=float(rng.uniform(0.06, 0.16)),
        marks=tuple(rng.uniform(-4.0, 4.0, int(rng.integers(0, 3))).tolist()),
        kerb=float(rng.choice([-1.0, 1.0]) * rng.uniform(1.8, 5.0)),
        verge=_floats(0.22, 0.21, 0.2) if rng.random() < 0.6 else _floats(0.07, 0.12, 0.04),
        pattern=rng.uniform(0.75, 1.25, (32, 32)).astype(np.float32),
    )


def _street_lamps(rng: np.random.Generator) -> tuple[Lamp, ...]:
    colour = np.asarray(STREET_LAMPS[int(rng.integers(len(STREET_LAMPS)))], np.float32)
    lamps = []
    for _ in range(int(rng.integers(1, 4))):
        side = rng.choice([-1.0, 1.0])
        place = _floats(rng.uniform(-10.0, 10.0), side * rng.uniform(2.5, 7.0), rng.uniform(4.5, 8.0))
        lamps.append(Lamp(place, colour * np.float32(rng.uniform(2.0, 9.0))))
    return tuple(lamps)


def traffic(rng: np.random.Generator, identity: WildIdentity, eye: Array) -> list[Solid]:
    """In a third of all pictures another vehicle behind the one that the camera at ``eye`` looks at, in a quarter a
    post somewhere around."""
    solids: list[Solid] = []
    if rng.random() < 0.35:
        other = build(sample_wild_identity(rng))
        away = -np.sign(eye[:2])
        place = (float(rng.uniform(-3.0, 3.0)), float(away[1] * rng.uniform(3.2, 4.2)))
        if rng.random() < 0.5:
            place = (float(away[0] * rng.uniform(6.5, 9.0)), float(rng.uniform(-0.5, 0.5)))
        turned = bool(rng.random() < 0.4)
        # hull, cabin and wheels: the rest is too small to matter at that distance
        solids += [solid.moved(place, turned=turned) for solid in other[:6]]
    if rng.random() < 0.25:
        x, y = rng.uniform(-2.5, 2.5), rng.choice([-1.0, 1.0]) * rng.uniform(1.5, 3.0)
        tall = rng.uniform(1.0, 4.0)
        solids.append(
            block("post", (identity, frame_of(identity)), (x, x + 0.12), (y, y + 0.12), (0.0, tall))
        )
    return solids
