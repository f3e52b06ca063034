"""What the points of a vehicle look like: colour, gloss, what glows and what sends light back.

A surface function gets the points ``p`` (3, N) that rays met, in the vehicle's own coordinates, and the normals ``n``
(3, N) there. Coordinates come first in all arrays: NumPy is fastest along the last axis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .bodies import Frame
from .identity import STEPS, WildIdentity
from .solids import Array

#: 8-bit red, green, blue by day.
Tone = tuple[float, float, float]
COLOURS: dict[str, Tone] = {
    "ivory": (226, 218, 196),
    "pearl": (206, 210, 214),
    "graphite": (88, 92, 98),
    "ink": (30, 31, 36),
    "maroon": (104, 24, 34),
    "scarlet": (200, 34, 30),
    "copper": (168, 92, 48),
    "mustard": (206, 164, 44),
    "olive": (100, 104, 52),
    "emerald": (24, 112, 80),
    "petrol": (24, 88, 104),
    "sky": (112, 166, 204),
    "navy": (28, 44, 108),
    "plum": (96, 48, 96),
    "white": (236, 236, 236),
    "black": (22, 22, 24),
    "grey": (104, 106, 108),
    "silver": (176, 178, 182),
    "red": (206, 36, 30),
    "yellow": (232, 196, 40),
    "blue": (40, 78, 190),
    "green": (36, 140, 66),
}
GLASS = {"clear": (52, 62, 68), "smoked": (14, 15, 18), "green": (46, 74, 62)}
HEAD_GLOW, TAIL_GLOW, AMBER = (1.0, 0.94, 0.78), (1.0, 0.06, 0.03), (1.0, 0.55, 0.06)


def linear(colour: Tone) -> Array:
    """8-bit RGB to reflected light, ``(3,)`` float32 in 0..1."""
    return (np.asarray(colour, np.float32) / np.float32(255.0)) ** np.float32(2.2)


@dataclass(eq=False)
class Surface:
    """N points: ``colour`` (3, N) reflected share, ``gloss`` (N,) 0 matt to 1 mirror-like, ``glow`` (3, N) emitted,
    ``back`` (N,) share that is sent back to where light came from (plates, lettering). All float32."""

    colour: Array
    gloss: Array
    glow: Array
    back: Array

    @classmethod
    def plain(cls, count: int, colour: Array, gloss: float) -> Surface:
        """All points alike."""
        return cls(
            np.repeat(colour[:, None], count, axis=1),
            np.full(count, gloss, np.float32),
            np.zeros((3, count), np.float32),
            np.zeros(count, np.float32),
        )

    def put(
        self,
        where: np.ndarray,
        colour: Tone | Array,
        *,
        gloss: float = 0.3,
        back: float = 0.0,
    ) -> None:
        """Cover the points ``where`` ``(N,)`` bool."""
        self.colour[:, where] = (colour if isinstance(colour, np.ndarray) else linear(colour))[:, None]
        self.gloss[where], self.back[where] = gloss, back

    def light(self, where: np.ndarray, glow: tuple[float, float, float], power: float) -> None:
        """Let the points ``where`` emit ``power`` times ``glow``, and look like glass by day."""
        tone = (
            (196, 198, 196)
            if glow is HEAD_GLOW
            else (40 + 150 * glow[0], 40 + 150 * glow[1], 40 + 150 * glow[2])
        )
        self.put(where, tone, gloss=0.8)
        self.glow[:, where] = np.asarray(glow, np.float32)[:, None] * power


def paint_of(identity: WildIdentity) -> Array:
    """The body's colour, lighter or darker by its shade."""
    return linear(COLOURS[identity.paint]) * (0.72 + 0.56 * identity.shade / (STEPS - 1))


def hull_surface(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    """The lower body: front, rear, sides and bonnet."""
    surface = Surface.plain(p.shape[1], paint_of(identity), 0.75)
    z, low = p[2], frame.clear
    skirt = {"body": None, "grey": COLOURS["grey"], "silver": COLOURS["silver"]}[identity.skirt]
    if skirt is not None:
        surface.put(z < low + 0.32 * (frame.sill - low), skirt, gloss=0.3)
    surface.put(z < low + 0.07, (18, 18, 20), gloss=0.1)
    if frame.truck:
        surface.put((np.abs(n[2]) > 0.9) & (p[0] < frame.cabin[0]), (60, 58, 54), gloss=0.1)
    front, rear = n[0] > 0.6, n[0] < -0.6
    _front(surface, identity, frame, p, front, lit)
    _rear(surface, identity, frame, p, rear, lit)
    _side(surface, identity, frame, p, np.abs(n[1]) > 0.6)
    bonnet = (n[2] > 0.5) & (p[0] > frame.cabin[1] - 0.1)
    colour = linear(COLOURS[identity.decal_colour])
    y = np.abs(p[1])
    if identity.bonnet == "stripe":
        surface.put(bonnet & (y < 0.16), colour, gloss=0.6)
    elif identity.bonnet == "twin":
        surface.put(bonnet & (y > 0.14) & (y < 0.34), colour, gloss=0.6)
    elif identity.bonnet == "black":
        surface.put(bonnet, COLOURS["black"], gloss=0.5)
    return surface


def _front(
    surface: Surface, identity: WildIdentity, frame: Frame, p: Array, on: np.ndarray, lit: float
) -> None:
    s = p[1] / frame.half
    t = (p[2] - frame.clear) / (frame.nose - frame.clear)
    side = np.abs(s)
    grille = on & (side < 0.52) & (t > 0.42) & (t < 0.90)
    pattern = {
        "bars": np.sin(t * 42.0) > 0.0,
        "slats": np.sin(s * 34.0) > 0.1,
        "mesh": (np.sin(t * 34.0) > 0.0) ^ (np.sin(s * 26.0) > 0.0),
        "closed": np.zeros(p.shape[1], bool),
        "split": side > 0.12,
        "frame": (side > 0.42) | (t > 0.80) | (t < 0.52),
    }[identity.grille]
    surface.put(grille, (70, 72, 76) if identity.grille != "closed" else paint_of(identity) * 0.8, gloss=0.6)
    surface.put(grille & pattern, (14, 14, 16) if identity.grille != "frame" else (190, 192, 196), gloss=0.5)
    _plate(surface, identity, on & (t > 0.10) & (t < 0.30), s)
    middle = 0.66
    lamp = {
        "round": ((side - 0.76) / 0.15) ** 2 + ((t - middle) / 0.17) ** 2 < 1.0,
        "slim": (side > 0.50) & (side < 0.97) & (np.abs(t - 0.78 - 0.12 * (side - 0.7)) < 0.06),
        "block": (side > 0.62) & (side < 0.92) & (np.abs(t - middle) < 0.15),
        "tall": (side > 0.78) & (side < 0.95) & (np.abs(t - 0.62) < 0.30),
        "twin": (np.abs(side - 0.66) < 0.08) & (np.abs(t - middle) < 0.12)
        | (np.abs(side - 0.88) < 0.08) & (np.abs(t - middle) < 0.12),
    }[identity.head_lamp]
    surface.light(on & lamp, HEAD_GLOW, 5.0 * lit)


def _rear(
    surface: Surface, identity: WildIdentity, frame: Frame, p: Array, on: np.ndarray, lit: float
) -> None:
    s = p[1] / frame.half
    t = (p[2] - frame.clear) / (frame.tail - frame.clear)
    side = np.abs(s)
    surface.put(on & (t < 0.24), (40, 40, 42), gloss=0.2)
    _plate(surface, identity, on & (t > 0.34) & (t < 0.52), s)
    lamp = {
        "bars": (side > 0.80) & (side < 0.94) & (t > 0.40) & (t < 0.95),
        "rings": np.abs(np.hypot((side - 0.76) * frame.half, (t - 0.72) * 0.55) - 0.11) < 0.05,
        "strip": (np.abs(t - 0.80) < 0.06) & (side < 0.95),
        "corners": (side > 0.62) & (side < 0.95) & ((np.abs(t - 0.90) < 0.06) | (side > 0.86) & (t > 0.55)),
        "dots": (np.hypot((side - 0.70) * frame.half, (t - 0.78) * 0.55) < 0.075)
        | (np.hypot((side - 0.90) * frame.half, (t - 0.78) * 0.55) < 0.075),
    }[identity.tail_lamp]
    surface.light(on & lamp, TAIL_GLOW, 2.2 * lit)
    _code(surface, identity, on & (t > 0.56) & (t < 0.70), s / 0.5 * 0.5 + 0.5, (t - 0.56) / 0.14)


def _plate(surface: Surface, identity: WildIdentity, on: np.ndarray, s: Array) -> None:
    across = s - 0.30 * identity.plate_place
    colour = {"white": (232, 232, 226), "yellow": (226, 182, 44), "blue": (40, 70, 170)}[identity.plate]
    surface.put(on & (np.abs(across) < 0.26), colour, back=0.6)
    surface.put(on & (np.abs(across) < 0.20) & (np.sin(across * 70.0) > 0.2), (40, 40, 44), back=0.1)


def _code(surface: Surface, identity: WildIdentity, on: np.ndarray, u: Array, v: Array) -> None:
    """Lettering: two rows of four fields."""
    fields = np.clip((u * 4).astype(int), 0, 3) + 4 * np.clip((v * 2).astype(int), 0, 1)
    bits = np.asarray(identity.code, bool)[fields]
    on = on & (u > 0.0) & (u < 1.0) & (v > 0.0) & (v < 1.0)
    dark = float(paint_of(identity).mean()) > 0.2
    surface.put(on & bits, (26, 28, 60) if dark else (232, 230, 220), gloss=0.2, back=0.35)


def _side(surface: Surface, identity: WildIdentity, frame: Frame, p: Array, on: np.ndarray) -> None:
    """Doors, decal, lettering and the dark of the wheel arches."""
    x, z, low = p[0], p[2], frame.clear
    t = (z - low) / (frame.sill - low)
    s = x / frame.front
    decal = {
        "none": np.zeros(p.shape[1], bool),
        "sweep": np.abs(t - 0.35 - 0.35 * s * s - 0.15 * s) < 0.11,
        "band": np.abs(t - 0.62) < 0.11,
        "chequers": (np.abs(t - 0.58) < 0.18) & ((np.floor(t * 5.5) + np.floor(s * 9)) % 2 > 0),
        "fade": (s < -0.1) & (np.sin((s + 0.6 * t) * 22.0) > 0.2),
        "twin": (np.abs(t - 0.42) < 0.05) | (np.abs(t - 0.70) < 0.05),
    }[identity.decal]
    surface.put(on & decal, COLOURS[identity.decal_colour], gloss=0.5, back=0.1)
    place = (-0.34, 0.0, 0.30)[identity.code_place]
    _code(surface, identity, on, (s - place) / 0.40 + 0.5, (t - 0.36) / 0.48)
    for axle in frame.axles:
        surface.put(on & (np.hypot(x - axle, z - frame.wheel) < frame.wheel * 1.17), (12, 12, 13), gloss=0.0)
    span = frame.cabin[1] - frame.cabin[0]
    if not frame.truck:
        for k in range(1, frame.panes + 1):
            door = frame.cabin[0] + span * k / (frame.panes + 0.35)
            surface.put(on & (np.abs(x - door) < 0.02) & (t > 0.12), paint_of(identity) * 0.35)


def cabin_surface(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    """The cabin: glass between posts, the roof, lamps above the wind screen."""
    surface = Surface.plain(p.shape[1], paint_of(identity), 0.75)
    back, ahead, top_ahead, top_back = frame.cabin
    v = (p[2] - frame.belt) / (frame.roof - frame.belt)
    rise = np.clip((p[2] - frame.sill) / (frame.roof - frame.sill), 0.0, 1.0)
    across = np.abs(p[1]) / (frame.half - 0.05 - frame.lean * (p[2] - frame.sill))
    glass = (v > 0.04) & (v < 0.86)
    front, rear = n[0] > 0.25, n[0] < -0.25
    side = (np.abs(n[1]) > 0.6) & ~front & ~rear
    u = (p[0] - (back + (top_back - back) * rise)) / (
        (ahead - back) + (top_ahead - ahead - top_back + back) * rise
    )
    within = (u * frame.panes * 1.0001) % 1.0
    post = 0.05 * frame.panes
    panes = side & glass & (within > post) & (within < 1.0 - post) & (u > 0.05) & (u < 0.96)
    tint = GLASS[identity.tint]
    surface.put(panes, tint, gloss=1.0)
    surface.put(
        rear & glass & (across < 0.86) & ~np.bool_(frame.truck and identity.tint == "smoked"), tint, gloss=1.0
    )
    surface.put(front & (v > 0.02) & (v < 0.92) & (across < 0.92), GLASS["clear"], gloss=1.0)
    top = (n[2] > 0.9) | (v > 0.92)
    if identity.roof != "body":
        surface.put(top, COLOURS[identity.roof], gloss=0.5)
    if identity.markers:
        place = (p[1] / frame.half + 0.62) / 1.24 * identity.markers
        dot = np.abs(place % 1.0 - 0.5) < 0.05 * identity.markers
        surface.light(front & (v > 0.90) & dot & (place > 0) & (place < identity.markers), AMBER, 1.4 * lit)
    return surface
