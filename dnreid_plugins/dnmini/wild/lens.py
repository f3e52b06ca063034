"""From light to a picture: rain, glare, lens, exposure, the camera's colours and noise, JPEG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from .camera import HEIGHT, WIDTH, Camera
from .scene import Scene
from .solids import Array

DAY_LEVEL, NIGHT_LEVEL = 0.30, 0.085  # what automatic exposure makes of the mean


def resized(picture: Array, size: tuple[int, int], how: Image.Resampling) -> Array:
    """``(H, W, 3)`` float32 to ``size`` = (columns, rows)."""
    channels = (Image.fromarray(np.ascontiguousarray(picture[..., c])).resize(size, how) for c in range(3))
    return np.stack([np.asarray(channel) for channel in channels], axis=2)


def blurred(picture: Array, sigma: float, axes: tuple[int, ...] = (0, 1)) -> Array:
    """Gaussian blur along ``axes`` with edges repeated."""
    reach = int(np.ceil(2.5 * sigma))
    if sigma < 0.2 or reach == 0:
        return picture
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in axes:
        pads = [(reach, reach) if a == axis else (0, 0) for a in range(picture.ndim)]
        wide = np.pad(picture, pads, mode="edge")
        size = picture.shape[axis]
        parts = (weight * wide.take(range(k, k + size), axis) for k, weight in enumerate(weights))
        picture = sum(parts)
    return picture


def glare(glow: Array, scene: Scene) -> Array:
    """Light that lens and wet air spread around lamps, ``(H, W, 3)``."""
    small = resized(glow, (WIDTH // 4, HEIGHT // 4), Image.Resampling.BOX)
    soft = 0.55 * blurred(small, 1.2) + (0.35 + 6.0 * scene.fog) * blurred(small, 4.0)
    return glow + resized(soft, (glow.shape[1], glow.shape[0]), Image.Resampling.BILINEAR)


def passing_glare(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """In one of five pictures the head lamps of another vehicle at the picture's edge, ``(H, W, 3)``."""
    light = np.zeros((*shape, 3), np.float32)
    if rng.random() < 0.2:
        high, wide = shape
        x, y = rng.choice([0.02, 0.98]) * wide, rng.uniform(0.1, 0.7) * high
        rows, columns = np.ogrid[:high, :wide]
        away = np.hypot(columns - x, (rows - y) * 1.3) / wide
        light += (rng.uniform(0.1, 0.5) / (1.0 + (away * 14.0) ** 2)).astype(np.float32)[..., None]
    return light


def rain_streaks(rng: np.random.Generator, scene: Scene, light: Array) -> Array:
    """Drops in front of the scene, as bright as what is around them."""
    high, wide = light.shape[:2]
    drops = Image.new("L", (wide, high))
    draw, slant = ImageDraw.Draw(drops), rng.uniform(-0.3, 0.3)
    for _ in range(int(40 + 110 * scene.rain)):
        x, y, size = rng.uniform(0, wide), rng.uniform(-10, high), rng.uniform(4, 14)
        draw.line((x, y, x + slant * size, y + size), fill=int(rng.integers(60, 200)))
    veil = np.asarray(drops, np.float32)[..., None] / np.float32(255.0)
    around = blurred(resized(light, (wide // 8, high // 8), Image.Resampling.BOX), 1.0)
    around = resized(around, (wide, high), Image.Resampling.BILINEAR)
    return light * (1.0 - 0.5 * veil) + 0.8 * veil * (around + scene.haze)


def develop(light: Array, camera: Camera, scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Light ``(H, W, 3)`` to the ``(80, 128, 3)`` uint8 picture that the camera stores."""
    detail = camera.detail * rng.uniform(0.85, 1.0)
    size = (max(8, int(WIDTH * detail)), max(8, int(HEIGHT * detail)))
    small = blurred(resized(light, size, Image.Resampling.BOX), camera.blur * detail)
    if scene.night:
        small = blurred(small, float(rng.uniform(0.0, 1.0)) * detail, axes=(1,))  # a long exposure
    level = NIGHT_LEVEL if scene.night else DAY_LEVEL
    mean = float(np.minimum(small, 1.0).mean()) + 1e-4
    gain = (level / mean) ** 0.75 * rng.uniform(0.8, 1.25) * (1.6 if scene.night else 1.0)
    mixed = _mixed(small, camera.colours)
    exposed = np.maximum(mixed * np.float32(gain), 0.0)
    noise = camera.noise * (1.0 + (0.9 * min(gain, 3.0) if scene.night else 0.0))
    grain = rng.standard_normal(exposed.shape, dtype=np.float32) * np.float32(noise)
    blotch = rng.standard_normal((size[1] // 4 + 1, size[0] // 4 + 1, 3), dtype=np.float32)
    blotch = resized(blotch, size, Image.Resampling.BILINEAR) * np.float32(0.6 * noise)
    rows, columns = np.ogrid[-1.0 : 1.0 : size[1] * 1j, -1.0 : 1.0 : size[0] * 1j]
    shading = (1.0 - camera.shading * 0.5 * (rows**2 + columns**2)).astype(np.float32)[..., None]
    exposed = exposed * shading + (grain + blotch) * np.sqrt(exposed + np.float32(0.02)) * np.float32(1.6)
    toned = 1.0 - np.exp(-1.6 * np.maximum(exposed, 0.0))
    stored = toned ** np.float32(camera.contrast / 2.2)
    final = resized(stored.astype(np.float32), (WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    return (np.clip(final, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def _mixed(picture: Array, matrix: Array) -> Array:
    """Each channel as a sum of all three, by hand as in `light.dot`."""
    rows = (picture[..., 0] * row[0] + picture[..., 1] * row[1] + picture[..., 2] * row[2] for row in matrix)
    return np.stack(list(rows), axis=2)


def jpeg(picture: np.ndarray, camera: Camera, *, night: bool) -> bytes:
    """The picture as the camera compresses it, by night more."""
    buffer = io.BytesIO()
    quality = camera.quality - 12 if night else camera.quality
    Image.fromarray(picture).save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()
