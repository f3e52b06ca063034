"""The identity of a vehicle of the second world: its attributes and their sampling from a seed.

As in the first world, the parity of a hash of all attributes halves the space of vehicles: one half is for the sets,
the other for pre-training, so that they can never share one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..identity import different, half_of, sentence

BODIES = ("coupe", "saloon", "estate", "crossover", "offroader", "microvan", "coach", "flatbed", "tanker")
PAINTS = (
    "ivory",
    "pearl",
    "graphite",
    "ink",
    "maroon",
    "scarlet",
    "copper",
    "mustard",
    "olive",
    "emerald",
    "petrol",
    "sky",
    "navy",
    "plum",
)
ROOFS = ("body", "black", "white")
SKIRTS = ("body", "grey", "silver")
DECALS = ("none", "sweep", "band", "chequers", "fade", "twin")
DECAL_COLOURS = ("white", "black", "red", "yellow", "blue", "green")
GRILLES = ("bars", "slats", "mesh", "closed", "split", "frame")
HEAD_LAMPS = ("round", "slim", "block", "tall", "twin")
TAIL_LAMPS = ("bars", "rings", "strip", "corners", "dots")
TINTS = ("clear", "smoked", "green")
LOADS = ("none", "bars", "case", "pair", "board", "beacon")
CARGOES = ("crates", "pipes", "cover", "empty")
WHEELS = ("five", "eight", "dish", "dark")
BONNETS = ("plain", "stripe", "twin", "black")
PLATES = ("white", "yellow", "blue")
STEPS = 6  # of every proportion
PROPORTIONS = ("length", "height", "bonnet", "rake", "belt", "stance")
CODE_BITS = 8  # fields of the panel on sides, back and bonnet, as lettering seen from afar
_LOAD_WORDS = {"bars": "roof bars", "case": "a case on the roof", "pair": "two cases on the roof"}


@dataclass(frozen=True)
class WildIdentity:
    """What tells a vehicle from all others. Every field is discrete.

    ``shade`` 0..5 inside the named paint; ``code``: the fields of the lettering, 0 or 1 each; ``code_place`` 0..2
    along the side; ``plate_place`` -1, 0 or 1; ``markers`` 0..4 lamps above the windscreen; ``proportions``: an
    integer 0..5 for each of ``PROPORTIONS``.
    """

    body: str
    paint: str
    shade: int
    roof: str
    skirt: str
    decal: str
    decal_colour: str
    grille: str
    head_lamp: str
    tail_lamp: str
    tint: str
    load: str
    cargo: str
    wheel: str
    bonnet: str
    plate: str
    plate_place: int
    markers: int
    code: tuple[int, ...]
    code_place: int
    proportions: tuple[int, ...]

    def half(self) -> int:
        """0 (the sets) or 1 (pre-training), the same on every machine."""
        return half_of(self)


def sample_wild_identity(rng: np.random.Generator) -> WildIdentity:
    """One vehicle from the whole space."""

    def pick(choices: tuple[str, ...], plain: float = 0.0) -> str:
        """One of ``choices``; ``plain``: how often it is the first, whatever the others are."""
        if plain and rng.random() < plain:
            return choices[0]
        return choices[int(rng.integers(len(choices)))]

    return WildIdentity(
        body=pick(BODIES),
        paint=pick(PAINTS),
        shade=int(rng.integers(STEPS)),
        roof=pick(ROOFS, 0.4),
        skirt=pick(SKIRTS, 0.3),
        decal=pick(DECALS, 0.25),
        decal_colour=pick(DECAL_COLOURS),
        grille=pick(GRILLES),
        head_lamp=pick(HEAD_LAMPS),
        tail_lamp=pick(TAIL_LAMPS),
        tint=pick(TINTS),
        load=pick(LOADS, 0.3),
        cargo=pick(CARGOES),
        wheel=pick(WHEELS),
        bonnet=pick(BONNETS, 0.3),
        plate=pick(PLATES),
        plate_place=int(rng.integers(-1, 2)),
        markers=int(rng.integers(5)),
        code=tuple(int(bit) for bit in rng.integers(2, size=CODE_BITS)),
        code_place=int(rng.integers(3)),
        proportions=tuple(int(step) for step in rng.integers(STEPS, size=len(PROPORTIONS))),
    )


def sample_wild_identities(*, count: int, seed: int, half: int) -> list[WildIdentity]:
    """``count`` different vehicles of one half, a function of the arguments alone; a longer list begins as a shorter.

    Raises:
        ValueError: ``half`` is neither 0 nor 1, or ``count`` is negative.
    """
    return different(sample_wild_identity, np.random.default_rng([seed, half, 2286]), count=count, half=half)


def wild_caption(identity: WildIdentity) -> str:
    """The vehicle as one English sentence, e.g. ``"a navy coach with a white roof, smoked side windows ..."``.

    Lettering, number plate, shade and proportions are left out, so several vehicles may share a caption.
    """
    parts = []
    if identity.skirt != "body":
        parts.append(f"{identity.skirt} lower panels")
    if identity.roof != "body":
        parts.append(f"a {identity.roof} roof")
    if identity.load != "none":
        parts.append(_LOAD_WORDS.get(identity.load, f"a {identity.load} on the roof"))
    if identity.decal != "none":
        parts.append(f"a {identity.decal_colour} {identity.decal} stripe")
    if identity.bonnet != "plain":
        parts.append(f"a {identity.bonnet} bonnet")
    parts.append(f"{identity.tint} side windows")
    parts += [f"{identity.wheel} wheels", f"{identity.head_lamp} lamps"]
    return sentence(identity.paint, identity.body, parts)
