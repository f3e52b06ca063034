"""Front and rear of a vehicle: bumpers, lamps, spare wheel, ladder."""

from __future__ import annotations

from typing import Protocol

from .canvas import Colour, Point3, disc, shade
from .identity import Identity
from .palette import LAMP_GLOWS, TAIL_GLOW, TYRE
from .shape import CLEARANCE, Shape


class Painter(Protocol):
    """The interface of `VehiclePainter`."""

    identity: Identity
    shape: Shape
    lower: Colour
    lights_on: tuple[float, float]

    def fill(self, points: list[Point3], colour: Colour) -> None: ...

    def lamp(self, points: list[Point3], glow: Colour, power: float) -> None: ...


def paint_front(painter: Painter) -> None:
    """Bumper, grille and head lamps."""
    shape, x = painter.shape, painter.shape.length
    width = shape.width
    painter.fill(
        [(x, 0, CLEARANCE), (x, width, CLEARANCE), (x, width, 0.5), (x, 0, 0.5)], shade(painter.lower, 0.6)
    )
    z = shape.lamp_height
    middle = (CLEARANCE + shape.nose) / 2
    painter.fill(
        [
            (x, 0.55, middle - 0.1),
            (x, width - 0.55, middle - 0.1),
            (x, width - 0.55, middle + 0.12),
            (x, 0.55, middle + 0.12),
        ],
        (36, 36, 40),
    )
    for y in (0.28, width - 0.28):
        _head_lamp(painter, x, y, z)


def _head_lamp(painter: Painter, x: float, y: float, z: float) -> None:
    glow, power = LAMP_GLOWS[painter.identity.lamp_colour], painter.lights_on[0]
    kind = painter.identity.lamp_shape
    if kind == "round":
        painter.lamp(disc((x, y, z), 0.16, plane="front"), glow, power)
    elif kind == "twin":
        for offset in (-0.12, 0.12):
            painter.lamp(disc((x, y + offset, z), 0.10, plane="front"), glow, power)
    else:
        half_y, half_z = (0.15, 0.13) if kind == "square" else (0.25, 0.06)
        painter.lamp(upright(x, y, z, half_y, half_z), glow, power)


def upright(x: float, y: float, z: float, half_y: float, half_z: float) -> list[Point3]:
    """A rectangle across the vehicle at ``x``, given by its centre and half sizes in metres."""
    return [
        (x, y - half_y, z - half_z),
        (x, y + half_y, z - half_z),
        (x, y + half_y, z + half_z),
        (x, y - half_y, z + half_z),
    ]


def paint_rear(painter: Painter) -> None:
    """Bumper, tail lamps, spare wheel or ladder."""
    shape, width = painter.shape, painter.shape.width
    painter.fill(
        [(0, 0, CLEARANCE), (0, width, CLEARANCE), (0, width, 0.5), (0, 0, 0.5)], shade(painter.lower, 0.6)
    )
    z, power, kind = shape.lamp_height + 0.05, 0.8 * painter.lights_on[0], painter.identity.tail_shape
    if kind == "full-width":
        painter.lamp(upright(0, width / 2, z, width / 2 - 0.08, 0.06), TAIL_GLOW, power)
    for y in (0.22, width - 0.22):
        if kind == "round":
            painter.lamp(disc((0, y, z), 0.14, plane="front"), TAIL_GLOW, power)
        elif kind != "full-width":
            half_y, half_z = (0.09, 0.26) if kind == "tall" else (0.20, 0.09)
            painter.lamp(upright(0, y, z, half_y, half_z), TAIL_GLOW, power)
    if painter.identity.rear == "spare wheel":
        centre = (-0.02, width / 2, min(shape.tail, 1.2) * 0.8)
        painter.fill(disc(centre, 0.34, plane="front"), TYRE)
        painter.fill(disc(centre, 0.18, plane="front"), (150, 150, 150))
    elif painter.identity.rear == "ladder":
        for y in (width * 0.40, width * 0.60):
            painter.fill(
                upright(-0.02, y, (CLEARANCE + shape.tail) / 2, 0.035, shape.tail * 0.42),
                (205, 205, 205),
            )
        for i in range(5):
            z = CLEARANCE + 0.15 + i * (shape.tail - CLEARANCE) / 5
            painter.fill(upright(-0.02, width / 2, z, width * 0.1, 0.03), (205, 205, 205))
