"""From the painted scene to a camera's picture: daylight or night exposure, colour cast, glare, noise, blur."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from ..functional.types import Domain

NIGHT_EXPOSURE = (0.30, 0.65)
NIGHT_DESATURATION = (0.2, 0.6)


def day_picture(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """``(H, W, 3)`` float32 in 0..1 to ``(H, W, 3)`` uint8: exposure, slight cast and haze, weak noise and blur."""
    gain = rng.uniform(0.80, 1.15) * rng.uniform(0.95, 1.05, size=3)
    haze = rng.uniform(0.0, 0.12)
    picture = picture * gain.astype(np.float32) * (1.0 - haze) + 0.8 * haze
    return _sensor(picture, rng, noise=rng.uniform(0.005, 0.02), blur=rng.uniform(0.0, 0.5))


def night_picture(picture: np.ndarray, lights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same scene by night. ``lights``: ``(H, W, 3)`` float32, what the lamps emit."""
    grey = picture.mean(axis=2, keepdims=True)
    loss = rng.uniform(*NIGHT_DESATURATION)
    picture = picture + loss * (grey - picture)
    cast = np.asarray(_CASTS[int(rng.integers(len(_CASTS)))]) * rng.uniform(0.92, 1.08, size=3)
    picture = picture * (rng.uniform(*NIGHT_EXPOSURE) * cast).astype(np.float32)
    picture = picture * _street_light(picture.shape[:2], rng)
    glow = Image.fromarray((lights * 255.0).astype(np.uint8))
    power = rng.uniform(0.6, 1.3)
    for radius, weight in ((0.0, 0.9), (2.0, 0.9), (7.0, 1.3), (18.0, 1.2)):
        blurred = glow.filter(ImageFilter.GaussianBlur(radius)) if radius else glow
        picture = picture + np.asarray(blurred, dtype=np.float32) * np.float32(weight * power / 255.0)
    return _sensor(picture, rng, noise=rng.uniform(0.02, 0.05), blur=rng.uniform(0.2, 0.9))


_CASTS = ((1.12, 0.95, 0.72), (1.05, 1.0, 0.85), (0.88, 1.0, 1.10), (0.90, 1.05, 0.95), (1.0, 1.0, 1.0))


def _street_light(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """``(H, W, 1)`` float32: a pool of light somewhere in the picture and falling off around it."""
    height, width = size
    x, y = rng.uniform(0.1, 0.9) * width, rng.uniform(-0.2, 0.7) * height
    reach = rng.uniform(0.5, 1.1) * width
    rows, columns = np.ogrid[:height, :width]
    falloff = np.exp(-(((columns - x) ** 2 + (rows - y) ** 2) / (2.0 * reach**2)))
    return (0.62 + 0.55 * falloff).astype(np.float32)[..., None]


def _sensor(picture: np.ndarray, rng: np.random.Generator, *, noise: float, blur: float) -> np.ndarray:
    """Blur (pixels), then signal-dependent noise (standard deviation at mid grey, 1 = full scale), then 8 bits."""
    image = Image.fromarray((np.clip(picture, 0.0, 1.0) * 255.0).astype(np.uint8))
    if blur > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    clean = np.asarray(image, dtype=np.float32) / 255.0
    grain = rng.standard_normal(clean.shape, dtype=np.float32)
    noisy = clean + grain * np.float32(noise) * np.sqrt(0.35 + 1.3 * clean)
    return (np.clip(noisy, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)


def jpeg_bytes(image: np.ndarray, *, domain: Domain, rng: np.random.Generator) -> bytes:
    """The picture as JPEG: quality 75..92 by day, 45..75 by night."""
    low, high = (75, 92) if domain == Domain.DAY else (45, 75)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=int(rng.integers(low, high + 1)))
    return buffer.getvalue()
