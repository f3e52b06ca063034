"""The identity of a rendered vehicle: its attributes, their sampling from a seed, and a caption.

The space of all vehicles is split in two halves by the parity of a hash of *all* attributes. DNMini takes its
identities from the even half, the pre-training source set from the odd half, so the two can never share one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, TypeVar

import numpy as np

Vehicle = TypeVar("Vehicle")

BODIES = ("sedan", "hatchback", "wagon", "suv", "pickup", "van", "minibus", "truck")
WINDOW_COUNTS = {
    "sedan": (2, 3),
    "hatchback": (1, 2, 3),
    "wagon": (2, 3, 4),
    "suv": (2, 3, 4),
    "pickup": (1, 2),
    "van": (1, 2, 3, 4),
    "minibus": (3, 4, 5, 6),
    "truck": (1, 2),
}
PAINTS = (
    "white",
    "silver",
    "grey",
    "black",
    "red",
    "orange",
    "yellow",
    "green",
    "teal",
    "blue",
    "purple",
    "brown",
)
TWO_TONES = ("none", "light", "dark")
STRIPES = ("none", "single", "double", "slanted", "checkered")
TONES = ("light", "dark")
TINTS = ("clear", "dark", "bright")
ROOFS = ("bare", "rack", "rails", "box", "light bar", "sign")
LAMP_SHAPES = ("round", "square", "slim", "twin")
LAMP_COLOURS = ("warm", "white", "blue")
TAIL_SHAPES = ("round", "tall", "wide", "full-width")
MARKER_COLOURS = ("amber", "red", "white")
WHEELS = ("spoked", "disc", "steel", "ring")
REARS = ("plain", "ladder", "spare wheel")
MARK_SHAPES = ("disc", "ring", "square", "triangle", "diamond", "cross", "bars", "chevron")
NUM_MARK_COLUMNS = 3  # two places, low and high, in each
NUM_STEPS = 8  # grid of every proportion: integers 0 .. NUM_STEPS - 1
PROPORTIONS = ("length", "height", "hood", "cabin", "belt", "wheelbase")


@dataclass(frozen=True)
class Mark:
    """One sticker on the vehicle's side: shape, place (0 = rear bottom ... 5 = front top), tone."""

    shape: str
    place: int
    tone: str


@dataclass(frozen=True)
class Identity:
    """All attributes that identify a vehicle. Every field is discrete, so that identities can be compared.

    ``lamp_height`` 0..3, ``num_markers`` 0..4, ``wheel_size`` 0..3, ``proportions`` one integer 0..7 for each
    name in ``PROPORTIONS``, ``shade`` 0..7 (variation inside the named paint).
    """

    body: str
    paint: str
    shade: int
    two_tone: str
    stripe: str
    stripe_tone: str
    num_windows: int
    tint: str
    roof: str
    lamp_shape: str
    lamp_height: int
    lamp_colour: str
    tail_shape: str
    num_markers: int
    marker_colour: str
    wheel: str
    wheel_size: int
    rear: str
    marks: tuple[Mark, ...]
    proportions: tuple[int, ...]

    def half(self) -> int:
        """0 (DNMini) or 1 (source set): parity of a SHA-256 of all attributes, the same on every machine."""
        return half_of(self)


def half_of(identity: Any) -> int:
    """Parity of a SHA-256 of all fields of a dataclass: 0 or 1, about equally often."""
    return hashlib.sha256(repr(astuple(identity)).encode()).digest()[0] & 1


def _pick(
    rng: np.random.Generator, choices: tuple[Any, ...], weights: tuple[float, ...] | None = None
) -> Any:
    probabilities = None if weights is None else np.asarray(weights) / np.sum(weights)
    return choices[int(rng.choice(len(choices), p=probabilities))]


def _sample_marks(rng: np.random.Generator) -> tuple[Mark, ...]:
    count = int(rng.choice(4, p=(0.15, 0.35, 0.3, 0.2)))
    columns = sorted(int(column) for column in rng.choice(NUM_MARK_COLUMNS, size=count, replace=False))
    return tuple(
        Mark(shape=_pick(rng, MARK_SHAPES), place=2 * column + int(rng.integers(2)), tone=_pick(rng, TONES))
        for column in columns
    )


def sample_identity(rng: np.random.Generator) -> Identity:
    """One random vehicle from the whole attribute space."""
    body = _pick(rng, BODIES)
    return Identity(
        body=body,
        paint=_pick(rng, PAINTS),
        shade=int(rng.integers(NUM_STEPS)),
        two_tone=_pick(rng, TWO_TONES, (3, 1, 1)),
        stripe=_pick(rng, STRIPES, (3, 1, 1, 1, 1)),
        stripe_tone=_pick(rng, TONES),
        num_windows=_pick(rng, WINDOW_COUNTS[body]),
        tint=_pick(rng, TINTS),
        roof=_pick(rng, ROOFS, (3, 1, 1, 1, 1, 1)),
        lamp_shape=_pick(rng, LAMP_SHAPES),
        lamp_height=int(rng.integers(4)),
        lamp_colour=_pick(rng, LAMP_COLOURS),
        tail_shape=_pick(rng, TAIL_SHAPES),
        num_markers=int(rng.integers(5)),
        marker_colour=_pick(rng, MARKER_COLOURS),
        wheel=_pick(rng, WHEELS),
        wheel_size=int(rng.integers(4)),
        rear=_pick(rng, REARS, (2, 1, 1)),
        marks=_sample_marks(rng),
        proportions=tuple(int(step) for step in rng.integers(NUM_STEPS, size=len(PROPORTIONS))),
    )


def sample_identities(*, count: int, seed: int, half: int) -> list[Identity]:
    """``count`` different vehicles from one half of the attribute space, a function of the arguments alone.

    Args:
        count: number of vehicles, >= 0.
        seed: any non-negative integer.
        half: 0 for DNMini, 1 for the source set; the two halves never share a vehicle.
    """
    return different(sample_identity, np.random.default_rng([seed, half, 348]), count=count, half=half)


def different(
    sample: Callable[[np.random.Generator], Vehicle], rng: np.random.Generator, *, count: int, half: int
) -> list[Vehicle]:
    """The first ``count`` different vehicles of one half that ``sample`` draws; a longer list begins as a shorter.

    Raises:
        ValueError: ``half`` is neither 0 nor 1, or ``count`` is negative.
    """
    if half not in (0, 1):
        raise ValueError(f"half must be 0 (the sets) or 1 (pre-training), got {half}")
    if count < 0:
        raise ValueError(f"count must be >= 0, got {count}; ask for at least zero identities")
    found: dict[Vehicle, None] = {}  # keeps the order of sampling
    while len(found) < count:
        vehicle = sample(rng)
        if half_of(vehicle) == half:
            found[vehicle] = None
    return list(found)


_ROOF_WORDS = {"rack": "a roof rack", "rails": "roof rails", "box": "a roof box", "sign": "a roof sign"}
_NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six")


def caption(identity: Identity) -> str:
    """The vehicle as one English sentence, e.g. ``"a red van with a roof rack, two dark windows and round lamps"``.

    Only attributes that a person would mention; proportions and shade are left out, so several vehicles may share a
    caption.
    """
    parts = []
    if identity.two_tone != "none":
        parts.append(f"{identity.two_tone} lower panels")
    if identity.roof != "bare":
        parts.append(_ROOF_WORDS.get(identity.roof, f"a {identity.roof} on the roof"))
    if identity.stripe != "none":
        parts.append(f"a {identity.stripe_tone} {identity.stripe} stripe")
    plural = "window" if identity.num_windows == 1 else "windows"
    parts.append(f"{_NUMBER_WORDS[identity.num_windows]} {identity.tint} side {plural}")
    parts += [f"a {mark.tone} {mark.shape} mark" for mark in identity.marks]
    if identity.rear != "plain":
        parts.append(f"a {identity.rear} at the back")
    if identity.num_markers:
        plural = "light" if identity.num_markers == 1 else "lights"
        parts.append(f"{_NUMBER_WORDS[identity.num_markers]} {identity.marker_colour} marker {plural}")
    parts.append(f"{identity.wheel} wheels")
    parts.append(f"{identity.lamp_shape} {identity.lamp_colour} lamps")
    return sentence(identity.paint, identity.body, parts)


def sentence(paint: str, body: str, parts: Sequence[str]) -> str:
    """``"a red van with a roof rack and round lamps"`` of at least two parts."""
    article = "an" if paint[0] in "aeiou" else "a"
    return f"{article} {paint} {body} with {', '.join(parts[:-1])} and {parts[-1]}"
