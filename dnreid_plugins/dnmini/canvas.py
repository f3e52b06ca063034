"""A small orthographic camera and a canvas that paints polygons given in metres, with the lamps that glow at night."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point3 = tuple[float, float, float]

WIDTH, HEIGHT = 128, 80  # pixels of a finished image
SUPERSAMPLING = 2


@dataclass(frozen=True)
class Camera:
    """The viewpoint. Angles in radians, ``scale`` in canvas pixels per metre.

    ``yaw`` > 0 shows the front, < 0 the rear, 0 the plain side. ``pitch`` is how far the camera looks down.
    ``roll`` turns the vehicle in the picture. ``mirrored``: the vehicle drives to the left.
    """

    yaw: float
    pitch: float
    roll: float
    scale: float
    centre: tuple[float, float]
    mirrored: bool

    def project(self, points: Sequence[Point3]) -> list[tuple[float, float]]:
        """Metres to canvas pixels. Orthographic; farther points are slightly shrunk."""
        cos_yaw, sin_yaw = math.cos(self.yaw), math.sin(self.yaw)
        cos_pitch, sin_pitch = math.cos(self.pitch), math.sin(self.pitch)
        cos_roll, sin_roll = math.cos(self.roll), math.sin(self.roll)
        projected = []
        for x, y, z in points:
            depth = y * cos_yaw - x * sin_yaw
            nearness = self.scale / (1.0 + 0.03 * depth)
            u = (x * cos_yaw + y * sin_yaw) * nearness
            v = -(z * cos_pitch + depth * sin_pitch) * nearness
            u, v = u * cos_roll - v * sin_roll, u * sin_roll + v * cos_roll
            projected.append((self.centre[0] + (-u if self.mirrored else u), self.centre[1] + v))
        return projected

    def faces(self, *, normal: Point3) -> float:
        """Cosine between a face's normal and the direction to the camera; > 0 means visible."""
        to_camera = (
            math.cos(self.pitch) * math.sin(self.yaw),
            -math.cos(self.pitch) * math.cos(self.yaw),
            math.sin(self.pitch),
        )
        return sum(n * c for n, c in zip(normal, to_camera, strict=True))


def shade(colour: Colour, factor: float) -> Colour:
    """The colour times ``factor``, clipped to 0..255."""
    red, green, blue = (min(255, max(0, int(channel * factor))) for channel in colour)
    return red, green, blue


class Canvas:
    """The supersampled picture and, in the same geometry, the picture of all light sources (black elsewhere)."""

    def __init__(self) -> None:
        size = (WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING)
        self.picture = Image.new("RGB", size)
        self.lights = Image.new("RGB", size)
        self.draw = ImageDraw.Draw(self.picture)
        self._light_draw = ImageDraw.Draw(self.lights)

    def polygon(self, pixels: Sequence[tuple[float, float]], colour: Colour) -> None:
        """A filled polygon; it hides the lamps behind it."""
        self.draw.polygon(pixels, fill=colour)
        self._light_draw.polygon(pixels, fill=(0, 0, 0))

    def lamp(self, pixels: Sequence[tuple[float, float]], colour: Colour, glow: Colour) -> None:
        """A polygon that reflects ``colour`` by day and also emits ``glow`` by night."""
        self.draw.polygon(pixels, fill=colour)
        self._light_draw.polygon(pixels, fill=glow)

    def finish(self) -> tuple[np.ndarray, np.ndarray]:
        """``(picture, lights)``, each ``(HEIGHT, WIDTH, 3)`` float32 in 0..1."""
        small = [image.reduce(SUPERSAMPLING) for image in (self.picture, self.lights)]
        picture, lights = (np.asarray(image, dtype=np.float32) / 255.0 for image in small)
        return picture, lights


def disc(centre: Point3, radius: float, *, plane: str, corners: int = 14) -> list[Point3]:
    """A regular polygon around ``centre`` in the plane ``"side"`` (x, z) or ``"front"`` (y, z)."""
    x, y, z = centre
    angles = [2.0 * math.pi * i / corners for i in range(corners)]
    if plane == "side":
        return [(x + radius * math.cos(a), y, z + radius * math.sin(a)) for a in angles]
    return [(x, y + radius * math.cos(a), z + radius * math.sin(a)) for a in angles]


def box(x: tuple[float, float], z: tuple[float, float], *, y: float) -> list[Point3]:
    """An upright rectangle on the side plane at depth ``y``."""
    return [(x[0], y, z[0]), (x[1], y, z[0]), (x[1], y, z[1]), (x[0], y, z[1])]
