"""The scene around the vehicle: the viewpoint, the street behind it and occluding objects in front of it."""

from __future__ import annotations

import math

import numpy as np

from .canvas import HEIGHT, SUPERSAMPLING, WIDTH, Camera, Canvas, Colour
from .shape import Shape

_WIDE, _HIGH = WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING
MAX_YAW = math.radians(32.0)
OCCLUSION_SHARE = 0.3


def sample_camera(shape: Shape, rng: np.random.Generator) -> Camera:
    """A viewpoint from which the vehicle fills about 80 % of the picture's width and stays inside its height."""
    yaw = float(rng.uniform(-MAX_YAW, MAX_YAW))
    pitch = float(rng.uniform(math.radians(3.0), math.radians(16.0)))
    roll = float(rng.normal(0.0, math.radians(1.8)))
    mirrored = bool(rng.random() < 0.5)
    trial = Camera(yaw=yaw, pitch=pitch, roll=roll, scale=1.0, centre=(0.0, 0.0), mirrored=mirrored)
    corners = [
        (x, y, z) for x in (0.0, shape.length) for y in (0.0, shape.width) for z in (0.0, shape.height)
    ]
    u, v = np.asarray(trial.project(corners)).T
    scale = min(rng.uniform(0.72, 0.88) * _WIDE / np.ptp(u), rng.uniform(0.80, 0.92) * _HIGH / np.ptp(v))
    shift = rng.normal(0.0, 0.02, size=2)
    centre = (
        float(_WIDE * (0.5 + shift[0]) - scale * (u.min() + u.max()) / 2),
        float(_HIGH * (0.53 + shift[1]) - scale * (v.min() + v.max()) / 2),
    )
    return Camera(yaw=yaw, pitch=pitch, roll=roll, scale=float(scale), centre=centre, mirrored=mirrored)


def _grey(rng: np.random.Generator, low: int, high: int, spread: int = 10) -> Colour:
    base = int(rng.integers(low, high))
    red, green, blue = (min(255, max(0, base + int(rng.integers(-spread, spread + 1)))) for _ in range(3))
    return red, green, blue


def paint_background(canvas: Canvas, rng: np.random.Generator) -> None:
    """Sky or wall, houses with windows, trees, poles, kerb, road and lane marks; street lamps go to the lights."""
    draw = canvas.draw
    horizon = int(_HIGH * rng.uniform(0.25, 0.55))
    draw.rectangle((0, 0, _WIDE, horizon), fill=_grey(rng, 150, 225, 14))
    for _ in range(int(rng.integers(2, 5))):
        left, wide = int(rng.integers(-40, _WIDE)), int(rng.integers(30, 110))
        top = int(rng.integers(-10, max(1, horizon - 8)))
        draw.rectangle((left, top, left + wide, horizon + 4), fill=_grey(rng, 70, 190, 24))
        pane = _grey(rng, 40, 120)
        for x in range(left + 6, left + wide - 8, 16):
            for y in range(max(top, 0) + 5, horizon - 8, 16):
                draw.rectangle((x, y, x + 7, y + 8), fill=pane)
    for _ in range(int(rng.integers(0, 4))):
        x, y, r = int(rng.integers(0, _WIDE)), horizon - int(rng.integers(0, 25)), int(rng.integers(10, 28))
        green = (int(rng.integers(30, 70)), int(rng.integers(70, 120)), int(rng.integers(30, 60)))
        draw.ellipse((x - r, y - r, x + r, y + r), fill=green)
    kerb = horizon + int(rng.integers(2, 14))
    draw.rectangle((0, horizon, _WIDE, kerb), fill=_grey(rng, 120, 180))
    draw.rectangle((0, kerb, _WIDE, _HIGH), fill=_grey(rng, 70, 130, 6))
    for _ in range(int(rng.integers(0, 3))):
        y, slant = int(rng.integers(kerb, _HIGH)), int(rng.integers(-20, 20))
        draw.line((0, y, _WIDE, y + slant), fill=_grey(rng, 160, 225, 6), width=int(rng.integers(2, 6)))
    for _ in range(int(rng.integers(0, 3))):
        x = int(rng.integers(0, _WIDE))
        draw.line((x, 0, x, kerb + 6), fill=_grey(rng, 50, 110), width=int(rng.integers(2, 6)))
    _street_lamps(canvas, rng, horizon)


def _street_lamps(canvas: Canvas, rng: np.random.Generator, horizon: int) -> None:
    for _ in range(int(rng.integers(0, 4))):
        x, y, r = int(rng.integers(0, _WIDE)), int(rng.integers(0, max(1, horizon))), int(rng.integers(2, 5))
        corners = [(x + r * math.cos(i), y + r * math.sin(i)) for i in range(6)]
        warm = (255, int(rng.integers(170, 240)), int(rng.integers(90, 200)))
        canvas.lamp(corners, _grey(rng, 170, 230), warm)


def paint_occluder(canvas: Canvas, rng: np.random.Generator) -> None:
    """With probability ``OCCLUSION_SHARE``: a post, a hedge, a box or a passing car's edge in front of the vehicle."""
    if rng.random() >= OCCLUSION_SHARE:
        return
    kind = int(rng.integers(4))
    x = float(rng.uniform(0.05, 0.95)) * _WIDE
    colour = _grey(rng, 40, 150, 30)
    if kind == 0:
        wide = float(rng.uniform(5, 14))
        canvas.polygon([(x, 0), (x + wide, 0), (x + wide, _HIGH), (x, _HIGH)], colour)
    elif kind == 1:
        wide, top = float(rng.uniform(30, 90)), float(rng.uniform(0.72, 0.86)) * _HIGH
        hedge = [(x + wide * i / 8, top + float(rng.uniform(-7, 7))) for i in range(9)]
        canvas.polygon([*hedge, (x + wide, _HIGH), (x, _HIGH)], (40, 84, 44))
    elif kind == 2:
        wide, tall = float(rng.uniform(20, 45)), float(rng.uniform(20, 50))
        canvas.polygon([(x, _HIGH - tall), (x + wide, _HIGH - tall), (x + wide, _HIGH), (x, _HIGH)], colour)
    else:
        edge = float(rng.uniform(0.08, 0.2)) * _WIDE
        side = [
            (0.0, 0.45 * _HIGH),
            (edge * 0.8, 0.5 * _HIGH),
            (edge, 0.7 * _HIGH),
            (edge, _HIGH),
            (0.0, _HIGH),
        ]
        if rng.random() < 0.5:
            side = [(_WIDE - u, v) for u, v in side]
        canvas.polygon(side, colour)
