"""Colours of DNMini: paints, lamps, marks. All 8-bit RGB in daylight."""

from __future__ import annotations

from .canvas import Colour, shade
from .identity import NUM_STEPS, Identity

PAINT_COLOURS: dict[str, Colour] = {
    "white": (228, 228, 224),
    "silver": (176, 180, 184),
    "grey": (112, 114, 118),
    "black": (44, 44, 50),
    "red": (186, 36, 38),
    "orange": (222, 116, 34),
    "yellow": (224, 190, 50),
    "green": (46, 124, 62),
    "teal": (38, 140, 140),
    "blue": (40, 78, 174),
    "purple": (112, 56, 140),
    "brown": (116, 78, 50),
}
TONE_COLOURS: dict[str, Colour] = {"light": (238, 238, 232), "dark": (30, 30, 34)}
TINT_COLOURS: dict[str, Colour] = {"clear": (96, 116, 130), "dark": (26, 30, 36), "bright": (164, 186, 198)}
LAMP_GLOWS: dict[str, Colour] = {"warm": (255, 206, 120), "white": (250, 250, 240), "blue": (170, 206, 255)}
MARKER_GLOWS: dict[str, Colour] = {"amber": (255, 160, 20), "red": (255, 40, 30), "white": (240, 240, 235)}
TAIL_GLOW: Colour = (255, 36, 24)
TYRE: Colour = (28, 28, 30)


def paint_colour(identity: Identity) -> Colour:
    """The body colour: the named paint, made up to 14 % lighter or darker by ``identity.shade``."""
    factor = 0.86 + 0.28 * identity.shade / (NUM_STEPS - 1)
    return shade(PAINT_COLOURS[identity.paint], factor)


def contrast_tone(tone: str, paint: Colour) -> Colour:
    """A mark's colour. The paint may be as light or dark as the mark, so the tone is moved away from it."""
    base = TONE_COLOURS[tone]
    luminance = sum(paint) / 3.0
    if tone == "light" and luminance > 190:
        return (70, 96, 150)
    if tone == "dark" and luminance < 65:
        return (150, 136, 96)
    return base
