"""One picture of one vehicle. All randomness comes from the numbers that name the picture."""

from __future__ import annotations

import numpy as np

from ...functional.types import Domain
from .bodies import build
from .camera import CAMERAS, Camera, aim, camera_number, camera_of
from .identity import WildIdentity
from .lens import develop, glare, jpeg, passing_glare, rain_streaks
from .light import trace
from .scene import sample_scene, traffic


def render_wild(
    identity: WildIdentity, camera: Camera, rng: np.random.Generator, domain: Domain | int
) -> np.ndarray:
    """A vehicle before a camera by day or by night: ``(80, 128, 3)`` uint8 RGB, before JPEG.

    Args:
        identity: the vehicle.
        camera: which camera takes it.
        rng: determines weather, light, traffic, the cut and the noise; the same state gives the same picture.
        domain: ``Domain.DAY`` or ``Domain.NIGHT``.
    """
    night = Domain(domain) == Domain.NIGHT
    vehicle = build(identity)
    view = aim(camera, vehicle, rng)
    scene = sample_scene(rng, night=night)
    light, glow = trace(scene, view, [*vehicle, *traffic(rng, identity, view.eye)], own=len(vehicle))
    light = light + glare(glow, scene) if scene.lit else light
    if night:
        light = light + passing_glare(rng, light.shape[:2])
    if scene.rain:
        light = rain_streaks(rng, scene, light)
    return develop(light, camera, scene, rng)


def any_camera(identity: WildIdentity, rng: np.random.Generator, domain: Domain | int) -> np.ndarray:
    """`render_wild` before a camera that no rendering has."""
    camera = camera_of(int(rng.integers(2**62)), int(rng.integers(CAMERAS)))
    return render_wild(identity, camera, rng, domain)


def wild_jpeg(identity: WildIdentity, seed: int, domain: Domain | int, raw_id: int, view: int) -> bytes:
    """Picture ``view`` of vehicle ``raw_id`` in the rendering ``seed``, as its camera stores it."""
    domain = Domain(domain)
    camera = camera_of(seed, camera_number(seed, domain, raw_id, view))
    picture = render_wild(identity, camera, np.random.default_rng([seed, int(domain), raw_id, view]), domain)
    return jpeg(picture, camera, night=domain == Domain.NIGHT)
