"""A pinhole camera and the casting of its rays on convex solids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .solids import Array, Solid

NOTHING = -1


@dataclass(frozen=True, eq=False)
class View:
    """A camera at ``eye`` with unit axes ``right``, ``up`` and ``ahead``, each ``(3,)`` float32.

    The picture is the rectangle ``window`` = (left, right, bottom, top) of the plane at distance 1, ``size`` =
    (columns, rows) pixels.
    """

    eye: Array
    right: Array
    up: Array
    ahead: Array
    window: tuple[float, float, float, float]
    size: tuple[int, int]

    def columns(self) -> Array:
        """``(1, W)``: where each column cuts the plane at distance 1."""
        left, right, _, _ = self.window
        wide = self.size[0]
        return (left + (right - left) * (np.arange(wide, dtype=np.float32)[None] + 0.5) / wide).astype(
            np.float32
        )

    def rows(self) -> Array:
        """``(H, 1)``, likewise, from the top."""
        _, _, bottom, top = self.window
        high = self.size[1]
        return (top - (top - bottom) * (np.arange(high, dtype=np.float32)[:, None] + 0.5) / high).astype(
            np.float32
        )

    def flat(self, points: Array) -> Array:
        """``(N, 3)`` points in front of the camera -> ``(N, 2)`` on the plane at distance 1."""
        away = points - self.eye
        depth = np.maximum(_dot(away, self.ahead), np.float32(0.05))
        return np.stack([_dot(away, self.right) / depth, _dot(away, self.up) / depth], axis=1)

    def pixels(self, solid: Solid) -> tuple[slice, slice] | None:
        """Rows and columns that may show the solid; None: none does."""
        if float(_dot(solid.corners - self.eye, self.ahead).min()) < 0.2:
            return None  # beside or behind the camera
        flat = self.flat(solid.corners)
        left, right, bottom, top = self.window
        wide, high = self.size
        x = (flat[:, 0] - left) / (right - left) * wide
        y = (top - flat[:, 1]) / (top - bottom) * high
        x0, x1 = max(0, math.floor(float(x.min()))), min(wide, math.ceil(float(x.max())))
        y0, y1 = max(0, math.floor(float(y.min()))), min(high, math.ceil(float(y.max())))
        return (slice(y0, y1), slice(x0, x1)) if x0 < x1 and y0 < y1 else None


def _dot(points: Array, axis: Array) -> Array:
    return points[:, 0] * axis[0] + points[:, 1] * axis[1] + points[:, 2] * axis[2]


def look(
    azimuth: float, elevation: float, distance: float, roll: float, aim: tuple[float, float, float]
) -> tuple[Array, Array, Array, Array]:
    """Eye, right, up, ahead of a camera that looks at ``aim``. Angles in radians; azimuth 0 sees the front."""
    flat = math.cos(elevation)
    back = np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])
    ahead = -back
    right = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    up = np.cross(right, ahead)
    turned = right * math.cos(roll) + up * math.sin(roll)
    up = up * math.cos(roll) - right * math.sin(roll)
    eye = np.asarray(aim) + distance * back
    return tuple(axis.astype(np.float32) for axis in (eye, turned, up, ahead))  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Hits:
    """What each ray meets first. All ``(H, W)``: ``depth`` along the camera's axis in metres (infinite: nothing),
    ``solid`` its number or ``NOTHING``, ``face`` the number of the face in it."""

    depth: Array
    solid: np.ndarray
    face: np.ndarray


def cast(view: View, solids: Sequence[Solid]) -> Hits:
    """The nearest of ``solids`` along each ray of ``view``.

    A ray is inside a convex solid between the last face that it enters and the first that it leaves.
    """
    wide, high = view.size
    columns, rows = view.columns(), view.rows()
    depth = np.full((high, wide), np.inf, dtype=np.float32)
    number = np.full((high, wide), NOTHING, dtype=np.int16)
    face = np.zeros((high, wide), dtype=np.int16)
    for index, solid in enumerate(solids):
        place = view.pixels(solid)
        if place is None:
            continue
        normals, distances = solid.planes[:, :3], solid.planes[:, 3]
        room = (distances - _dot(normals, view.eye))[:, None, None]
        slope = _dot(normals, view.ahead)[:, None, None] + (
            columns[:, place[1]] * _dot(normals, view.right)[:, None, None]
            + rows[place[0]] * _dot(normals, view.up)[:, None, None]
        )
        slope = np.where(np.abs(slope) < 1e-7, np.float32(1e-7), slope)
        crossing = room / slope
        entering = np.where(slope < 0, crossing, -np.inf)
        entry = entering.max(axis=0)
        leaving = np.where(slope > 0, crossing, np.inf).min(axis=0)
        seen = (entry < leaving) & (entry > 0) & (entry < depth[place])
        depth[place] = np.where(seen, entry, depth[place])
        number[place] = np.where(seen, index, number[place])
        face[place] = np.where(seen, entering.argmax(axis=0), face[place])
    return Hits(depth, number, face)


def shadowed(x: Array, y: Array, solids: Sequence[Solid], towards: Array) -> np.ndarray:
    """Which points ``(x, y, 0)`` of the ground lie in the shadow of ``solids``; ``towards`` the light, ``(3,)``."""
    hidden = np.zeros(x.shape, dtype=bool)
    for solid in solids:
        enter = np.zeros(x.shape, dtype=np.float32)
        leave = np.full(x.shape, np.inf, dtype=np.float32)
        for nx, ny, nz, distance in solid.planes:
            slope = nx * towards[0] + ny * towards[1] + nz * towards[2]
            room = distance - nx * x - ny * y
            if abs(slope) < 1e-6:
                leave = np.where(room < 0, -np.inf, leave)
            elif slope < 0:
                enter = np.maximum(enter, room / slope)
            else:
                leave = np.minimum(leave, room / slope)
        hidden |= enter < leave
    return hidden
