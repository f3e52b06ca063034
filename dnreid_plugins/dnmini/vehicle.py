"""Paints one vehicle: hull, glass, lamps, wheels and everything that distinguishes identities."""

from __future__ import annotations

import math

from .canvas import Camera, Canvas, Colour, Point3, box, disc, shade
from .ends import paint_front, paint_rear
from .identity import Identity, Mark
from .marks import mark_polygons
from .palette import (
    LAMP_GLOWS,
    MARKER_GLOWS,
    TAIL_GLOW,
    TINT_COLOURS,
    TYRE,
    contrast_tone,
    paint_colour,
)
from .shape import CLEARANCE, Edge, Shape, build_shape


class VehiclePainter:
    """Paints one identity from one camera onto one canvas; ``paint()`` does it all, back to front.

    Args:
        lights_on: brightness of the vehicle's lamps in the picture of lights, 0..1 per lamp group:
            ``(head and tail lamps, marker lights)``.
    """

    def __init__(
        self,
        identity: Identity,
        camera: Camera,
        canvas: Canvas,
        *,
        lights_on: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        self.identity, self.camera, self.canvas, self.lights_on = identity, camera, canvas, lights_on
        self.shape: Shape = build_shape(identity)
        self.body: Colour = paint_colour(identity)
        self.lower: Colour = {"none": self.body, "light": (206, 206, 202), "dark": (54, 54, 58)}[
            identity.two_tone
        ]
        self.glass: Colour = TINT_COLOURS[identity.tint]

    def paint(self) -> None:
        """The whole vehicle."""
        self._shadow()
        self._hull()
        if self.camera.faces(normal=(1.0, 0.0, 0.0)) > 0.02:
            paint_front(self)
        if self.camera.faces(normal=(-1.0, 0.0, 0.0)) > 0.02:
            paint_rear(self)
        self._side()
        self._stripe()
        self._windows()
        for mark in self.identity.marks:
            self._mark(mark)
        self._wheels()
        self._markers()
        self._roof()

    def fill(self, points: list[Point3], colour: Colour) -> None:
        """A filled polygon given in metres."""
        self.canvas.polygon(self.camera.project(points), colour)

    def lamp(self, points: list[Point3], glow: Colour, power: float) -> None:
        """A lamp given in metres; ``power`` (0..1) is its brightness in the picture of lights."""
        self.canvas.lamp(self.camera.project(points), shade(glow, 0.92), shade(glow, power))

    def _shadow(self) -> None:
        reach = 0.25
        low, high = -reach, self.shape.length + reach
        far = self.shape.width + reach
        self.fill([(low, -reach, 0.0), (high, -reach, 0.0), (high, far, 0.0), (low, far, 0.0)], (34, 34, 36))

    def _hull(self) -> None:
        """The profile extruded across the vehicle: every strip that faces the camera, farthest first."""
        strips: list[tuple[float, Edge, float]] = []
        for edge in self.shape.edges:
            (x0, z0), (x1, z1) = edge.start, edge.end
            norm = math.hypot(x1 - x0, z1 - z0) or 1.0
            normal = ((z1 - z0) / norm, 0.0, -(x1 - x0) / norm)
            if self.camera.faces(normal=normal) > 0.0:
                depth = -(x0 + x1) / 2 * math.sin(self.camera.yaw) - (z0 + z1) / 2 * math.sin(
                    self.camera.pitch
                )
                strips.append((depth, edge, 0.62 + 0.5 * max(0.0, normal[2])))
        for _, edge, light in sorted(strips, key=lambda strip: -strip[0]):
            self._strip(edge, light)

    def _strip(self, edge: Edge, light: float) -> None:
        (x0, z0), (x1, z1) = edge.start, edge.end
        width = self.shape.width
        self.fill([(x0, 0.0, z0), (x1, 0.0, z1), (x1, width, z1), (x0, width, z0)], shade(self.body, light))
        if edge.glass:
            near, far = 0.12, width - 0.12
            xa, za = x0 + 0.1 * (x1 - x0), z0 + 0.1 * (z1 - z0)
            xb, zb = x0 + 0.9 * (x1 - x0), z0 + 0.9 * (z1 - z0)
            self.fill(
                [(xa, near, za), (xb, near, zb), (xb, far, zb), (xa, far, za)], shade(self.glass, light + 0.1)
            )

    def _side(self) -> None:
        shape = self.shape
        self.fill([(x, 0.0, z) for x, z in shape.profile], shade(self.body, 0.95))
        split = shape.side_band[2] + (shape.nose - shape.side_band[2]) * 0.35
        if self.identity.two_tone != "none":
            self.fill(box((0.0, shape.length), (CLEARANCE, split), y=0.0), self.lower)
        self.fill(box((0.0, shape.length), (CLEARANCE, CLEARANCE + 0.10), y=0.0), shade(self.lower, 0.5))

    def _windows(self) -> None:
        for pane in self.shape.panes:
            self.fill([(x, -0.01, z) for x, z in pane], self.glass)
        for pane in self.shape.panes[1:]:  # a door line below each pillar
            x = pane[0][0] - 0.03
            self.fill(
                box((x - 0.015, x + 0.015), (CLEARANCE + 0.12, pane[0][1]), y=-0.01), shade(self.body, 0.6)
            )

    def _stripe(self) -> None:
        kind, (x0, x1, z0, z1) = self.identity.stripe, self.shape.side_band
        colour = contrast_tone(self.identity.stripe_tone, self.body)
        middle = (z0 + z1) / 2 + 0.08
        if kind == "single":
            self.fill(box((x0, x1), (middle - 0.07, middle + 0.07), y=-0.01), colour)
        elif kind == "double":
            for z in (middle - 0.12, middle + 0.10):
                self.fill(box((x0, x1), (z - 0.04, z + 0.04), y=-0.01), colour)
        elif kind == "slanted":
            for x in (x0 + 0.42 * (x1 - x0), x0 + 0.56 * (x1 - x0)):
                self.fill(
                    [(x, -0.01, z0), (x + 0.2, -0.01, z0), (x + 0.55, -0.01, z1), (x + 0.35, -0.01, z1)],
                    colour,
                )
        elif kind == "checkered":
            cell = (x1 - x0) / 14
            for i in range(14):
                z = middle - 0.11 + 0.11 * (i % 2)
                self.fill(box((x0 + i * cell, x0 + (i + 1) * cell), (z, z + 0.11), y=-0.01), colour)

    def _mark(self, mark: Mark) -> None:
        """Marks sit between the axles (on a truck: along its box), in three columns and two rows."""
        shape = self.shape
        x0, x1, z0, z1 = shape.side_band
        if self.identity.body != "truck":
            reach = shape.wheel_radius * 1.2
            x0, x1 = shape.wheels[0] + reach, shape.wheels[1] - reach
        radius = min(0.21, (x1 - x0) / 7, (z1 - z0) / 2.2)
        x = x0 + (x1 - x0) * (1 + 2 * (mark.place // 2)) / 6
        z = z0 + radius if mark.place % 2 == 0 else z1 - radius
        colour = contrast_tone(mark.tone, self.body)
        for polygon in mark_polygons(mark.shape, radius=radius):
            self.fill([(x + dx, -0.02, z + dz) for dx, dz in polygon], colour)
        if mark.shape == "ring":
            self.fill(disc((x, -0.02, z), 0.55 * radius, plane="side"), self.body)

    def _wheels(self) -> None:
        radius = self.shape.wheel_radius
        for x in self.shape.wheels:
            self.fill(disc((x, -0.02, radius), radius * 1.18, plane="side"), (20, 20, 22))
            self.fill(disc((x, -0.04, radius), radius, plane="side"), TYRE)
            self._rim(x, radius)

    def _rim(self, x: float, radius: float) -> None:
        kind = self.identity.wheel
        tone: Colour = (96, 96, 98) if kind == "steel" else (196, 198, 202)
        self.fill(disc((x, -0.05, radius), radius * 0.66, plane="side"), tone)
        if kind == "ring":
            self.fill(disc((x, -0.06, radius), radius * 0.46, plane="side"), TYRE)
        elif kind == "spoked":
            for i in range(5):
                self.fill(disc(self._on_rim(x, radius, i), radius * 0.13, plane="side", corners=6), TYRE)
        elif kind == "steel":
            self.fill(disc((x, -0.06, radius), radius * 0.22, plane="side"), (190, 190, 190))

    @staticmethod
    def _on_rim(x: float, radius: float, i: int) -> Point3:
        angle = 2.0 * math.pi * i / 5
        return (x + 0.42 * radius * math.cos(angle), -0.06, radius + 0.42 * radius * math.sin(angle))

    def _markers(self) -> None:
        """Small lamps along the sill, evenly spread, and the corner lamps that wrap around the side."""
        x0, x1, z0, _ = self.shape.side_band
        glow, power = MARKER_GLOWS[self.identity.marker_colour], 0.9 * self.lights_on[1]
        for i in range(self.identity.num_markers):
            x = x0 + (x1 - x0) * (i + 1) / (self.identity.num_markers + 1)
            self.lamp(box((x - 0.075, x + 0.075), (z0 - 0.06, z0 + 0.05), y=-0.03), glow, power)
        z, head = self.shape.lamp_height, LAMP_GLOWS[self.identity.lamp_colour]
        half = {"round": 0.12, "square": 0.12, "slim": 0.055, "twin": 0.09}[self.identity.lamp_shape]
        reach = {"round": 0.14, "square": 0.16, "slim": 0.34, "twin": 0.18}[self.identity.lamp_shape]
        self.lamp(
            box((self.shape.length - reach, self.shape.length), (z - half, z + half), y=-0.03),
            head,
            0.9 * self.lights_on[0],
        )
        half = {"round": 0.11, "tall": 0.24, "wide": 0.08, "full-width": 0.06}[self.identity.tail_shape]
        self.lamp(
            box((0.0, 0.12), (z + 0.05 - half, z + 0.05 + half), y=-0.03), TAIL_GLOW, 0.7 * self.lights_on[0]
        )

    def _roof(self) -> None:
        kind = self.identity.roof
        if kind == "bare":
            return
        x0, x1, z = self.shape.roof
        width, middle = self.shape.width, (x0 + x1) / 2
        if kind in ("rack", "rails"):
            for y in (width - 0.15, 0.12):
                self.fill(box((x0, x1), (z + 0.10, z + 0.16), y=y), (60, 60, 64))
            if kind == "rack":
                for i in range(4):
                    x = x0 + (x1 - x0) * i / 3
                    self.fill(box((x - 0.04, x + 0.04), (z, z + 0.26), y=0.12), (60, 60, 64))
            return
        half, tall, colour = {
            "box": ((x1 - x0) * 0.36, 0.30, (70, 72, 76)),
            "light bar": ((x1 - x0) * 0.22, 0.14, (70, 110, 190)),
            "sign": (0.20, 0.26, (232, 200, 70)),
        }[kind]
        near, far = (0.2, width - 0.2) if kind != "sign" else (width * 0.3, width * 0.7)
        top = z + tall
        self.fill(
            [
                (middle - half, near, top),
                (middle + half, near, top),
                (middle + half, far, top),
                (middle - half, far, top),
            ],
            shade(colour, 1.15),
        )
        front = box((middle - half, middle + half), (z, top), y=near)
        if kind == "box":
            self.fill(front, colour)
        else:
            self.lamp(front, colour, 0.75 * self.lights_on[1])
