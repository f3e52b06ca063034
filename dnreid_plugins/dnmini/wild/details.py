"""Surfaces of wheels, mirrors, cargo and what stands on the roof, and the table of all surfaces by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .bodies import Frame
from .identity import WildIdentity
from .solids import Array, Solid
from .surfaces import AMBER, COLOURS, Surface, cabin_surface, hull_surface, linear, paint_of

Painter = Callable[[WildIdentity, Frame, Array, Array, float], Surface]


def _tank(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    surface = Surface.plain(p.shape[1], linear((190, 192, 196)), 0.8)
    if identity.body == "tanker":
        s = p[0] / frame.front
        band = {"none": 0.0, "sweep": 0.35, "band": 0.2, "chequers": 0.12, "fade": 0.5, "twin": 0.08}[
            identity.decal
        ]
        surface.put(np.abs(s + 0.38) < band, COLOURS[identity.decal_colour], gloss=0.6)
        surface.put(np.abs(p[2] - frame.sill - 0.08) < 0.08, paint_of(identity), gloss=0.4)
        surface.put(np.abs(n[0]) > 0.9, paint_of(identity), gloss=0.6)
        return surface
    surface.put(np.abs(n[0]) > 0.9, (30, 30, 32), gloss=0.1)
    return surface


def _cover(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    surface = Surface.plain(p.shape[1], linear(COLOURS[identity.decal_colour]) * 0.8, 0.1)
    ribs = np.sin(p[0] * 9.0) > 0.85
    surface.put(ribs, linear(COLOURS[identity.decal_colour]) * 0.4, gloss=0.1)
    return surface


def _crate(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    surface = Surface.plain(p.shape[1], linear((150, 112, 70)), 0.05)
    surface.put(np.sin(p[2] * 24.0) > 0.8, (70, 48, 30), gloss=0.05)
    return surface


def _case(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    return Surface.plain(
        p.shape[1], linear((46, 48, 52)) if identity.shade % 2 else linear((196, 196, 190)), 0.5
    )


def _bar(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    return Surface.plain(p.shape[1], linear((168, 170, 174)), 0.6)


def _mirror(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    black = identity.roof == "black" or identity.skirt == "grey"
    return Surface.plain(p.shape[1], linear((26, 26, 28)) if black else paint_of(identity), 0.5)


def _board(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    surface = Surface.plain(p.shape[1], linear((232, 196, 60)), 0.2)
    surface.put(np.sin(p[1] * 18.0) > 0.5, (40, 40, 40), gloss=0.2)
    surface.glow[:] = np.asarray((1.0, 0.8, 0.3), np.float32)[:, None] * (0.7 * lit)
    return surface


def _beacon(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    surface = Surface.plain(p.shape[1], linear((60, 60, 64)), 0.4)
    surface.light(np.abs(p[1]) > frame.half * 0.25, AMBER, 1.2 * lit)
    return surface


def _post(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    return Surface.plain(p.shape[1], linear((110, 112, 112)), 0.2)


def _wheel(identity: WildIdentity, frame: Frame, p: Array, n: Array, lit: float) -> Surface:
    surface = Surface.plain(p.shape[1], linear((24, 24, 26)), 0.1)
    axle = np.where(p[0] < 0, frame.axles[0], frame.axles[1])
    x, z = p[0] - axle, p[2] - frame.wheel
    away, angle = np.hypot(x, z) / frame.wheel, np.arctan2(z, x)
    rim = (np.abs(n[1]) > 0.9) & (away < 0.68)
    spokes = {
        "five": np.cos(5 * angle) > -0.1,
        "eight": np.cos(8 * angle) > 0.0,
        "dish": np.ones(p.shape[1], bool),
        "dark": np.cos(6 * angle) > 0.7,
    }[identity.wheel]
    surface.put(rim & (spokes | (away < 0.18)), (168, 170, 174), gloss=0.6)
    return surface


PAINTERS: dict[str, Painter] = {
    "hull": hull_surface,
    "cabin": cabin_surface,
    "wheel": _wheel,
    "mirror": _mirror,
    "tank": _tank,
    "cover": _cover,
    "crate": _crate,
    "case": _case,
    "bar": _bar,
    "board": _board,
    "beacon": _beacon,
    "post": _post,
}


def surface_of(solid: Solid, points: Array, normals: Array, lit: float) -> Surface:
    """The surface at ``points`` and ``normals`` ``(3, N)`` of a solid; ``lit``: brightness of the vehicle's lamps."""
    (identity, frame), place = solid.owner, solid.place
    turn = np.asarray((place.sign, place.sign, -1.0 if place.below else 1.0), np.float32)[:, None]
    own = (points - np.asarray((*place.shift, 0.0), np.float32)[:, None]) * turn
    return PAINTERS[solid.kind](identity, frame, own, normals * turn, lit)
