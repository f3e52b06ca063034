"""DNMiniWild's geometry, light and lens against slow or closed forms."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dnreid_plugins.dnmini.wild.bodies import BODIES, build, frame_of
from dnreid_plugins.dnmini.wild.camera import aim, camera_of
from dnreid_plugins.dnmini.wild.details import PAINTERS
from dnreid_plugins.dnmini.wild.identity import sample_wild_identities
from dnreid_plugins.dnmini.wild.lens import blurred, develop, glare, rain_streaks
from dnreid_plugins.dnmini.wild.light import Rays, from_lamps, surroundings, trace
from dnreid_plugins.dnmini.wild.rays import NOTHING, View, cast, look, shadowed
from dnreid_plugins.dnmini.wild.scene import Lamp, sample_scene, traffic
from dnreid_plugins.dnmini.wild.solids import Solid, block, pipe, prism, wheel

SOLIDS = [
    prism("hull", None, [(-2.0, 0.2), (2.0, 0.2), (1.6, 0.9), (-1.8, 1.0)], 0.9, lean=0.1),
    block("case", None, (-1.0, 0.5), (-0.7, 0.7), (0.95, 1.5), lean=0.3),
    wheel("wheel", None, 1.2, (0.7, 0.95), 0.33),
    pipe("tank", None, (-1.5, 0.0), (0.2, 1.4), (0.5, 0.3)),
    block("case", None, (-0.5, 0.5), (-0.3, 0.3), (0.0, 0.8)).moved((3.0, 1.5), turned=True),
]


def view(azimuth: float = 0.7, size: tuple[int, int] = (23, 17)) -> View:
    axes = look(azimuth, 0.35, 9.0, 0.05, (0.0, 0.0, 0.6))
    return View(*axes, (-0.4, 0.4, -0.25, 0.25), size)


def nearest(solids: list[Solid], eye: np.ndarray, ray: np.ndarray) -> tuple[float, int]:
    """The first point of a ray that is inside a solid, by all pairs of a face's crossing and every other face."""
    best = (math.inf, NOTHING)
    for number, solid in enumerate(solids):
        planes = solid.planes.astype(float)
        for *normal, distance in planes:
            slope = float(np.dot(normal, ray))
            if slope >= 0:
                continue
            t = (distance - float(np.dot(normal, eye))) / slope
            point = eye + t * ray
            if t > 0 and (planes[:, :3] @ point <= planes[:, 3] + 1e-6).all() and t < best[0]:
                best = (t, number)
    return best


@pytest.mark.parametrize("azimuth", [0.0, 0.7, 2.5, 4.4])
def test_rays_meet_what_a_search_over_all_faces_finds(azimuth: float) -> None:
    camera = view(azimuth)
    hits, rays = cast(camera, SOLIDS), Rays.of(camera)
    for k in range(rays.reach.shape[1]):
        row, column = divmod(k, camera.size[0])
        depth, number = nearest(SOLIDS, camera.eye.astype(float), rays.reach[:, k].astype(float))
        found = hits.depth[row, column]
        if math.isinf(depth) or math.isinf(found):
            assert math.isinf(depth) and math.isinf(found) and hits.solid[row, column] == NOTHING
        else:
            assert found == pytest.approx(depth, abs=1e-3) and hits.solid[row, column] == number
            plane = SOLIDS[number].planes[hits.face[row, column]]
            point = camera.eye + found * rays.reach[:, k]
            assert plane[:3] @ point == pytest.approx(plane[3], abs=1e-3)
    assert len(np.unique(hits.solid)) >= 4


def test_no_solid_and_a_solid_behind_the_camera_are_not_met() -> None:
    assert (cast(view(), []).solid == NOTHING).all()
    behind = block("case", None, (30.0, 31.0), (-1.0, 1.0), (0.0, 2.0))
    assert (cast(view(0.0), [behind]).solid == NOTHING).all()


def test_shadows_are_where_a_ray_to_the_sun_meets_something() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.uniform(-5, 5, 300).astype(np.float32) for _ in range(2))
    sun = np.asarray((0.5, -0.4, 0.77), np.float32)
    found = shadowed(x, y, SOLIDS, sun)
    wanted = [nearest(SOLIDS, np.array([a, b, 0.0]), sun.astype(float))[1] != NOTHING for a, b in zip(x, y)]
    inside = [(SOLIDS[4].planes[:, :3] @ [a, b, 0.0] <= SOLIDS[4].planes[:, 3]).all() for a, b in zip(x, y)]
    assert found.tolist() == [bool(w or i) for w, i in zip(wanted, inside)] and 10 < found.sum() < 290


@pytest.mark.parametrize("solid", [*SOLIDS, SOLIDS[0].below()], ids=lambda solid: solid.kind)
def test_corners_lie_on_the_faces(solid: Solid) -> None:
    away = solid.corners @ solid.planes[:, :3].T - solid.planes[:, 3]
    assert away.max() < 1e-5 and (np.abs(away) < 1e-5).any(axis=0).all()
    assert np.allclose(np.linalg.norm(solid.planes[:, :3], axis=1), 1.0, atol=1e-6)


def test_moving_and_mirroring_move_faces_and_corners_alike() -> None:
    solid = SOLIDS[0]
    points = np.random.default_rng(1).uniform(-2.5, 2.5, (400, 3)).astype(np.float32)
    inside = (points @ solid.planes[:, :3].T <= solid.planes[:, 3]).all(axis=1)
    assert 5 < inside.sum() < 395
    turned = solid.moved((2.0, -1.0), turned=True)
    moved = points * [-1, -1, 1] + [2.0, -1.0, 0.0]
    assert ((moved @ turned.planes[:, :3].T <= turned.planes[:, 3] + 1e-5).all(axis=1) == inside).all()
    below = solid.below()
    assert (((points * [1, 1, -1]) @ below.planes[:, :3].T <= below.planes[:, 3]).all(axis=1) == inside).all()


@pytest.mark.parametrize("body", BODIES)
def test_every_vehicle_stands_on_the_ground_and_fills_its_picture(body: str) -> None:
    vehicles = [one for one in sample_wild_identities(count=120, seed=8, half=0) if one.body == body][:4]
    assert vehicles
    for number, vehicle in enumerate(vehicles):
        solids, frame = build(vehicle), frame_of(vehicle)
        assert {solid.kind for solid in solids} <= set(PAINTERS)
        corners = np.concatenate([solid.corners for solid in solids])
        assert -0.01 < corners[:, 2].min() < 0.05 and corners[:, 2].max() < frame.roof + 0.5
        assert 2.5 < np.ptp(corners[:, 0]) < 7.5 and 1.4 < np.ptp(corners[:, 1]) < 2.8
        seen = cast(aim(camera_of(2, number), solids, np.random.default_rng(number)), solids)
        assert (seen.solid != NOTHING).mean() > 0.3


def test_lamps_light_by_the_inverse_square_and_the_cosine() -> None:
    scene = replace(
        sample_scene(np.random.default_rng(0), night=True),
        lamps=(Lamp(np.asarray((0.0, 0.0, 4.0), np.float32), np.asarray((8.0, 4.0, 2.0), np.float32)),),
    )
    points = np.asarray([[0.0, 3.0], [0.0, 0.0], [0.0, 0.0]], np.float32)
    up = np.asarray([[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]], np.float32)
    light = from_lamps(scene, points, up)
    assert np.allclose(light[:, 0], np.array([8.0, 4.0, 2.0]) / 16.0)
    assert np.allclose(light[:, 1], np.array([8.0, 4.0, 2.0]) / 25.0 * 0.8)
    assert (from_lamps(scene, points, -up) == 0.0).all()


def whole(*, night: bool, **changes: object) -> tuple[np.ndarray, np.ndarray]:
    vehicle = build(sample_wild_identities(count=1, seed=3, half=0)[0])
    scene = replace(
        sample_scene(np.random.default_rng(3), night=night), **{"fog": 0.0, "wet": 0.0, **changes}
    )
    camera = replace(camera_of(1, 0), crop=0.4, elevation=0.15)  # with much of the road
    return trace(scene, aim(camera, vehicle, np.random.default_rng(0)), vehicle, own=len(vehicle))


def test_fog_hides_by_distance() -> None:
    clear, thin, thick = (whole(night=False, fog=fog)[0] for fog in (0.0, 0.05, 5.0))
    haze = sample_scene(np.random.default_rng(3), night=False).haze
    assert np.allclose(thick, haze, atol=1e-5)
    assert thin.std() < 0.8 * clear.std()
    assert whole(night=True, fog=5.0)[1].max() < 1e-6 < whole(night=True)[1].max()  # lamps too


def test_a_wet_road_mirrors_the_vehicles_lamps() -> None:
    dry, wet = (whole(night=True, wet=wet, lit=1.0) for wet in (0.0, 1.0))
    assert (wet[1] > dry[1] + 1e-4).any() and (wet[1] >= dry[1] - 1e-6).all()
    assert not np.array_equal(dry[0], wet[0])


def test_lamps_glow_by_night_only_if_they_are_lit() -> None:
    assert whole(night=True, lit=0.0)[1].max() == 0.0
    one, two = (whole(night=True, lit=lit)[1] for lit in (0.4, 0.8))
    assert np.allclose(2.0 * one, two, atol=1e-6) and two.max() > 0.5


def test_the_sun_casts_a_shadow() -> None:
    sun = np.asarray((0.0, 0.0, 1.0), np.float32)
    light = {"sun": sun, "sunlight": np.ones(3, np.float32), "sky": np.full(3, 0.01, np.float32)}
    bright, _ = whole(night=False, road=0.1, marks=(), kerb=50.0, **light)
    ground = bright[bright.max(axis=2) < 0.2]
    assert ground.min() < 0.01 and np.percentile(ground, 90) > 0.05


def test_sky_is_above_and_road_below() -> None:
    scene = sample_scene(np.random.default_rng(5), night=False)
    up, level, down = surroundings(scene, np.asarray([1.0, 0.01, -1.0], np.float32)).T
    assert np.allclose(up, scene.sky * 0.9) and (level > up).all() and (down < up).all()


def test_traffic_stays_behind_the_vehicle_seen_from_the_camera() -> None:
    vehicle = sample_wild_identities(count=1, seed=3, half=0)[0]
    eye, shown = np.asarray((9.0, -6.0, 3.0), np.float32), 0
    for number in range(60):
        for solid in traffic(np.random.default_rng(number), vehicle, eye):
            middle = solid.corners.mean(axis=0)
            assert solid.kind == "post" or middle[0] < 0 or middle[1] > 0
            shown += solid.kind == "hull"
    assert 10 < shown < 35


def test_blur_keeps_the_sum_and_a_constant() -> None:
    picture = np.zeros((31, 33, 3), np.float32)
    picture[15, 16] = 1.0
    soft = blurred(picture, 1.5)
    assert soft.sum() == pytest.approx(3.0, rel=1e-5) and 0.05 < soft[15, 16, 0] < 0.1
    assert soft[15, 12, 0] == pytest.approx(soft[15, 20, 0]) and soft[11, 16, 0] == pytest.approx(
        soft[15, 12, 0]
    )
    assert np.allclose(blurred(np.full((4, 5, 3), 0.3, np.float32), 2.0), 0.3, atol=1e-6)
    assert blurred(picture, 0.0) is picture
    along = blurred(picture, 1.5, axes=(1,))
    assert along[14].max() == 0.0 < along[15, 13, 0]


def test_glare_spreads_light_and_more_in_fog() -> None:
    glow = np.zeros((100, 160, 3), np.float32)
    glow[48:52, 78:82] = 5.0
    scene = replace(sample_scene(np.random.default_rng(0), night=True), fog=0.0)
    clear, foggy = glare(glow, scene), glare(glow, replace(scene, fog=0.06))
    assert clear[50, 60, 0] > 0.0 and foggy[50, 60, 0] > clear[50, 60, 0] and (clear >= glow).all()


def test_rain_falls_in_lines_and_exposure_is_automatic() -> None:
    scene = replace(sample_scene(np.random.default_rng(0), night=False), rain=1.0)
    light, rng = np.full((100, 160, 3), 0.2, np.float32), np.random.default_rng(1)
    rain = rain_streaks(rng, scene, light)
    assert 0.02 < (np.abs(rain - light) > 0.02).mean() < 0.5
    camera = camera_of(1, 2)
    levels = [
        develop(light * strength, camera, scene, np.random.default_rng(2)).mean()
        for strength in (0.3, 1.0, 3.0)
    ]
    assert levels[0] < levels[1] < levels[2] < 2.0 * levels[0]
    assert develop(light, camera, scene, np.random.default_rng(2)).shape == (80, 128, 3)
