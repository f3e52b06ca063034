"""One picture of one vehicle: viewpoint, scene, vehicle, camera. All randomness comes from the given generator."""

from __future__ import annotations

import numpy as np

from ..functional.types import Domain
from .canvas import Canvas
from .identity import Identity
from .imaging import day_picture, night_picture
from .scene import paint_background, paint_occluder, sample_camera
from .shape import build_shape
from .vehicle import VehiclePainter


def render(identity: Identity, view_rng: np.random.Generator, domain: Domain | int) -> np.ndarray:
    """One view of ``identity`` as a camera would see it by day or by night.

    Args:
        identity: the vehicle.
        view_rng: determines viewpoint, scene, occlusion and the camera's noise; the same state gives the same picture.
        domain: ``Domain.DAY`` or ``Domain.NIGHT``.

    Returns:
        ``(80, 128, 3)`` uint8 RGB, before JPEG.
    """
    canvas = Canvas()
    camera = sample_camera(build_shape(identity), view_rng)
    paint_background(canvas, view_rng)
    lights_on = (float(view_rng.uniform(0.5, 1.0)), float(view_rng.uniform(0.5, 1.0)))
    VehiclePainter(identity, camera, canvas, lights_on=lights_on).paint()
    paint_occluder(canvas, view_rng)
    picture, lights = canvas.finish()
    if Domain(domain) == Domain.DAY:
        return day_picture(picture, view_rng)
    return night_picture(picture, lights, view_rng)
