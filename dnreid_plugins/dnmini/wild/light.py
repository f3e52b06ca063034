"""Light on what the rays met: sun and sky by day, lamps by night, mirror images in paint, glass and wet road.

Points, directions and light are ``(3, N)`` float32: x, y, z or red, green, blue first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .details import surface_of
from .rays import NOTHING, View, cast, shadowed
from .scene import Scene
from .solids import Array, Solid
from .surfaces import Surface

FAR = 60.0  # metres; beyond it there is only haze


@dataclass(frozen=True, eq=False)
class Rays:
    """The rays of a view: from ``eye`` ``(3, 1)`` one metre along the camera's axis each, ``reach`` ``(3, N)``, and
    of length 1, ``towards``."""

    eye: Array
    reach: Array
    towards: Array

    @classmethod
    def of(cls, view: View) -> Rays:
        columns, rows = view.columns(), view.rows()
        axes = zip(view.ahead, view.right, view.up, strict=True)
        reach = np.stack([(ahead + columns * right + rows * up).reshape(-1) for ahead, right, up in axes])
        return cls(view.eye[:, None], reach, unit(reach))

    def met(self, depth: Array, rows: np.ndarray) -> Array:
        """The points at ``depth`` ``(N,)`` of some rays."""
        return self.eye + self.reach[:, rows] * depth[rows]


def dot(a: Array, b: Array) -> Array:
    """``(3, N)`` -> ``(N,)``; by hand, since a BLAS may sum in another order on another machine."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unit(vectors: Array) -> Array:
    """``(3, N)`` to length 1."""
    return vectors / np.sqrt(dot(vectors, vectors))


def _sharp(cosine: Array, doublings: int) -> Array:
    """Its power 2 ** ``doublings``; 0 for what faces away."""
    power = np.maximum(cosine, 0.0)
    for _ in range(doublings):
        power = power * power
    return power


def surroundings(scene: Scene, rise: Array) -> Array:
    """What is seen in directions whose z is ``rise`` ``(N,)``, where no vehicle is: sky above, road below."""
    rise = np.clip(rise * 3.0, -1.0, 1.0)
    above = scene.sky[:, None]
    below = (above + scene.sunlight[:, None] * scene.sun[2]) * (scene.road * 1.4)
    near = _sharp(1.0 + np.minimum(rise, 0.0), 2)
    return np.where(rise > 0, above * (1.25 - 0.35 * rise), below + (above * 0.5 - below) * near)


def from_lamps(scene: Scene, points: Array, normals: Array) -> Array:
    """Light of the street lamps that reaches surfaces."""
    total = np.zeros_like(points)
    for lamp in scene.lamps:
        way = lamp.place[:, None] - points
        square = dot(way, way)
        total += lamp.power[:, None] * (np.maximum(dot(way, normals), 0.0) / (square * np.sqrt(square)))
    return total


def vehicle_light(
    scene: Scene, solids: Sequence[Solid], solid: np.ndarray, face: np.ndarray, points: Array, towards: Array
) -> tuple[Array, Array]:
    """Reflected and emitted light of points on solids, seen along ``towards``; ``solid`` and ``face`` ``(N,)``."""
    n, surface = np.zeros_like(points), Surface.plain(points.shape[1], np.zeros(3, np.float32), 0.0)
    for index in np.unique(solid):
        here = np.flatnonzero(solid == index)
        normals = solids[index].planes.T[:3, face[here]]
        found = surface_of(solids[index], points[:, here], normals, scene.lit)
        n[:, here], surface.colour[:, here], surface.glow[:, here] = normals, found.colour, found.glow
        surface.gloss[here], surface.back[here] = found.gloss, found.back
    diffuse = scene.sky[:, None] * (0.5 + 0.5 * n[2]) + 0.35 * surroundings(scene, -np.abs(n[2]))
    if not scene.night:
        diffuse += scene.sunlight[:, None] * np.maximum(dot(n, scene.sun), 0.0)
    diffuse += from_lamps(scene, points, n)
    against = np.maximum(-dot(towards, n), 0.0)
    diffuse += scene.from_camera * against
    mirror = towards + 2.0 * against * n
    share = surface.gloss * (0.05 + 0.75 * (1.0 - against) ** 3)
    bright = surroundings(scene, mirror[2]) + _glints(scene, points, mirror)
    seen = (
        surface.colour * (diffuse * (1.0 - share) + 4.0 * scene.from_camera * surface.back) + share * bright
    )
    return seen, surface.glow


def _glints(scene: Scene, points: Array, mirror: Array) -> Array:
    """Sun and street lamps in a mirroring surface."""
    if scene.night:
        total = np.zeros_like(mirror)
    else:
        total = scene.sunlight[:, None] * (6.0 * _sharp(dot(mirror, scene.sun), 6))
    for lamp in scene.lamps:
        way = lamp.place[:, None] - points
        square = dot(way, way)
        total = total + lamp.power[:, None] * (20.0 * _sharp(dot(mirror, way) / np.sqrt(square), 7) / square)
    return total


def road_light(scene: Scene, solids: Sequence[Solid], points: Array) -> Array:
    """Light from points of the ground around the vehicle ``solids``: asphalt, lines, verge, shadows, head lamps."""
    x, y = points[0], points[1]
    rough = scene.pattern[(x * 3).astype(int) % 32, (y * 3).astype(int) % 32]
    fine = scene.pattern[(y * 17).astype(int) % 32, (x * 17).astype(int) % 32]
    colour = np.stack([rough * fine * (scene.road * (1.0 - 0.5 * scene.wet))] * 3)
    for mark in scene.marks:
        colour[:, (np.abs(y - mark) < 0.07) & ((x * 0.25) % 1.0 < 0.6)] = 0.55
    beyond = (y > scene.kerb) if scene.kerb > 0 else (y < scene.kerb)
    colour[:, beyond] = scene.verge[:, None] * rough[beyond]
    light = scene.sky[:, None] + 0.3 * scene.from_camera
    if scene.night:
        up = np.zeros_like(points)
        up[2] = 1.0
        light = light + from_lamps(scene, points, up)
    elif float(scene.sunlight.max()) > 0.25:
        light = light + scene.sunlight[:, None] * (scene.sun[2] * ~shadowed(x, y, solids, scene.sun))
    front, half = (float(limit) for limit in solids[0].corners.max(axis=0)[:2])
    away = np.hypot(np.maximum(np.abs(x) - front + 0.1, 0.0), np.maximum(np.abs(y) - half + 0.1, 0.0))
    light = light * (1.0 - 0.75 * np.exp(-3.0 * away))
    if scene.night:
        ahead = np.maximum(x - front, 0.0)
        beam = np.exp(-((y / (0.7 + 0.25 * ahead)) ** 2)) / (1.0 + 0.1 * ahead**2)
        light = light + (0.5 * scene.lit) * beam * (ahead > 0)
    return colour * light


def trace(scene: Scene, view: View, solids: Sequence[Solid], *, own: int) -> tuple[Array, Array]:
    """Light of all pixels, reflected and emitted, ``(H, W, 3)`` each; the first ``own`` solids are the vehicle."""
    hits, rays = cast(view, solids), Rays.of(view)
    solid, face, depth = (part.reshape(-1) for part in (hits.solid, hits.face, hits.depth))
    falling = rays.reach[2] < -1e-4
    ground = np.where(falling, -rays.eye[2] / np.where(falling, rays.reach[2], -1.0), np.inf)
    road = (solid == NOTHING) & (ground < FAR)
    depth = np.minimum(np.where(road, ground, depth), FAR).astype(np.float32)
    seen, glow = np.zeros_like(rays.reach), np.zeros_like(rays.reach)
    rows = np.flatnonzero((solid == NOTHING) & ~road)
    seen[:, rows] = surroundings(scene, rays.towards[2, rows])
    rows = np.flatnonzero(road)
    seen[:, rows] = road_light(scene, solids[:own], rays.met(depth, rows))
    if scene.wet > 0:
        image, shine, share = _mirror_in_road(scene, view, rays, solids, rows)
        seen[:, rows] += share * image
        glow[:, rows] = share * shine
    rows = np.flatnonzero(solid != NOTHING)
    points = rays.met(depth, rows)
    seen[:, rows], glow[:, rows] = vehicle_light(
        scene, solids, solid[rows], face[rows], points, rays.towards[:, rows]
    )
    clear = np.exp(-scene.fog * depth)
    seen = seen * clear + scene.haze[:, None] * (1.0 - clear)
    high, wide = hits.depth.shape
    first, second = (np.moveaxis(light.reshape(3, high, wide), 0, 2) for light in (seen, glow * clear))
    return np.ascontiguousarray(first), np.ascontiguousarray(second)


def _mirror_in_road(
    scene: Scene, view: View, rays: Rays, solids: Sequence[Solid], rows: np.ndarray
) -> tuple[Array, Array, Array]:
    """What a wet road mirrors at the rays ``rows``, reflected and emitted, and its share ``(N,)``.

    The rays go on to the mirror images below the ground.
    """
    below = [solid.below() for solid in solids]
    hits = cast(view, below)
    solid, face, depth = (part.reshape(-1) for part in (hits.solid, hits.face, hits.depth))
    rise = -rays.towards[2, rows]
    share = scene.wet * (0.06 + 0.6 * (1.0 - rise) ** 4)
    image = surroundings(scene, rise)
    shine = np.zeros_like(image)
    met = np.flatnonzero(solid[rows] != NOTHING)
    there = rows[met]
    image[:, met], shine[:, met] = vehicle_light(
        scene, below, solid[there], face[there], rays.met(depth, there), rays.towards[:, there]
    )
    return image, shine, share
