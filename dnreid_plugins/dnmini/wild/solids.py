"""Convex solids as intersections of half-spaces. Units are metres: x forward, y to the left, z up.

The origin lies on the ground below the middle of the vehicle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Point2 = tuple[float, float]


@dataclass(frozen=True)
class Place:
    """Where a vehicle stands: moved by ``shift`` (x, y) on the ground, after half a turn if ``sign`` is -1; ``below``:
    its mirror image below the ground."""

    shift: Point2 = (0.0, 0.0)
    sign: float = 1.0
    below: bool = False


@dataclass(frozen=True, eq=False)
class Solid:
    """A convex solid.

    ``planes``: ``(K, 4)`` float32, unit normals n and distances d; inside is n . p <= d for all K faces.
    ``corners``: ``(V, 3)`` float32, whose hull encloses the solid. ``kind`` names the function that paints it, and
    ``owner`` is what that function wants to know of the vehicle.
    """

    kind: str
    planes: Array
    corners: Array
    owner: Any
    place: Place = Place()

    def moved(self, shift: Point2, *, turned: bool) -> Solid:
        """The same solid elsewhere on the ground, turned by half a turn first if ``turned``."""
        sign = -1.0 if turned else 1.0
        planes, corners = self.planes.copy(), self.corners.copy()
        planes[:, :2] *= sign
        corners[:, :2] *= sign
        corners[:, :2] += np.asarray(shift, np.float32)
        planes[:, 3] += planes[:, 0] * shift[0] + planes[:, 1] * shift[1]
        return replace(self, planes=planes, corners=corners, place=Place(shift, sign))

    def below(self) -> Solid:
        """The mirror image below the ground."""
        planes, corners = self.planes.copy(), self.corners.copy()
        planes[:, 2] *= -1.0
        corners[:, 2] *= -1.0
        return replace(self, planes=planes, corners=corners, place=replace(self.place, below=True))


def prism(
    kind: str,
    owner: Any,
    profile: Sequence[Point2],
    half_width: float,
    *,
    lean: float = 0.0,
    middle: float = 0.0,
) -> Solid:
    """A convex profile of (x, z), counterclockwise seen from the right (x to the right), extruded along y.

    Args:
        kind: of the surface.
        owner: for the surface.
        profile: corners.
        half_width: half the extent along y at the lowest corner.
        lean: by how much each side moves inwards per metre of height.
        middle: y of the middle.
    """
    base = min(z for _, z in profile)
    faces = []
    for (x0, z0), (x1, z1) in zip(profile, [*profile[1:], profile[0]], strict=True):
        size = math.hypot(x1 - x0, z1 - z0)
        if size < 1e-6:
            continue
        nx, nz = (z1 - z0) / size, -(x1 - x0) / size
        faces.append((nx, 0.0, nz, nx * x0 + nz * z0))
    scale = 1.0 / math.hypot(1.0, lean)
    for side in (-1.0, 1.0):
        distance = half_width + side * middle + lean * base
        faces.append((0.0, side * scale, lean * scale, distance * scale))
    corners = [
        (x, middle + side * (half_width - lean * (z - base)), z) for x, z in profile for side in (-1.0, 1.0)
    ]
    return Solid(kind, np.asarray(faces, np.float32), np.asarray(corners, np.float32), owner)


def block(kind: str, owner: Any, x: Point2, y: Point2, z: Point2, *, lean: float = 0.0) -> Solid:
    """A box from its limits."""
    profile = ((x[0], z[0]), (x[1], z[0]), (x[1], z[1]), (x[0], z[1]))
    return prism(kind, owner, profile, (y[1] - y[0]) / 2, lean=lean, middle=(y[0] + y[1]) / 2)


def wheel(kind: str, owner: Any, x: float, y: Point2, radius: float) -> Solid:
    """A wheel on the ground: a prism of ten sides."""
    angles = [2.0 * math.pi * (i + 0.5) / 10 for i in range(10)]
    profile = [(x + radius * math.cos(a), radius + radius * math.sin(a)) for a in angles]
    return prism(kind, owner, profile, (y[1] - y[0]) / 2, middle=(y[0] + y[1]) / 2)


def pipe(kind: str, owner: Any, x: Point2, centre: Point2, radius: Point2) -> Solid:
    """A lying tank or pipe along x with ten sides; ``centre`` (y, z), ``radius`` along y and z."""
    angles = [2.0 * math.pi * i / 10 for i in range(10)]
    ring = [(centre[0] + radius[0] * math.cos(a), centre[1] + radius[1] * math.sin(a)) for a in angles]
    faces = [(1.0, 0.0, 0.0, x[1]), (-1.0, 0.0, 0.0, -x[0])]
    for (y0, z0), (y1, z1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        size = math.hypot(y1 - y0, z1 - z0)
        ny, nz = (z1 - z0) / size, -(y1 - y0) / size
        faces.append((0.0, ny, nz, ny * y0 + nz * z0))
    corners = [(end, y, z) for y, z in ring for end in x]
    return Solid(kind, np.asarray(faces, np.float32), np.asarray(corners, np.float32), owner)
