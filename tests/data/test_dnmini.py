"""DNMini: identities, pictures, and what stands on the disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import all_bytes

from dnreid_plugins.data.datasets.settings import SETTINGS
from dnreid_plugins.dnmini import (
    DNMini,
    DNMini2,
    caption,
    contact_sheet,
    ensure_dnmini,
    render,
    sample_identities,
    write_dnmini,
)
from dnreid_plugins.dnmini import write as write_module
from dnreid_plugins.dnmini.canvas import Camera
from dnreid_plugins.dnmini.identity import BODIES, MARK_SHAPES
from dnreid_plugins.dnmini.marks import mark_polygons
from dnreid_plugins.dnmini.scene import sample_camera
from dnreid_plugins.dnmini.shape import build_shape
from dnreid_plugins.dnmini.write import MANIFEST, Parameters, raw_ids
from dnreid_plugins.functional.types import Domain

SMALL = {"seed": 3, "num_train_ids": 3, "num_test_ids": 2, "images_per_domain": 2}


# ---------------------------------------------------------------- identities


def test_identities_are_distinct_and_a_function_of_the_seed() -> None:
    first = sample_identities(count=300, seed=5, half=0)
    assert len(set(first)) == 300
    assert first == sample_identities(count=300, seed=5, half=0)
    assert first[:10] == sample_identities(count=10, seed=5, half=0)
    assert set(first).isdisjoint(sample_identities(count=300, seed=6, half=0))


def test_the_halves_are_disjoint_by_construction() -> None:
    target = sample_identities(count=200, seed=0, half=0)
    source = sample_identities(count=200, seed=0, half=1)
    assert {identity.half() for identity in target} == {0}
    assert {identity.half() for identity in source} == {1}


def test_half_is_refused_when_there_is_no_such_half() -> None:
    with pytest.raises(ValueError, match="half must be 0"):
        sample_identities(count=1, seed=0, half=2)
    with pytest.raises(ValueError, match="count must be >= 0"):
        sample_identities(count=-1, seed=0, half=0)


def test_captions_name_the_body_and_tell_most_vehicles_apart() -> None:
    identities = sample_identities(count=200, seed=1, half=0)
    captions = [caption(identity) for identity in identities]
    for identity, text in zip(identities, captions, strict=True):
        assert text.startswith(("a ", "an ")) and f"{identity.paint} {identity.body} with " in text
        assert ("roof" in text) == (identity.roof != "bare")
    assert len(set(captions)) > 195


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("domain", list(Domain))
def test_a_picture_is_a_function_of_identity_generator_and_domain(domain: Domain) -> None:
    one, other = sample_identities(count=2, seed=2, half=0)
    picture = render(one, np.random.default_rng(0), domain)
    assert picture.shape == (80, 128, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, render(one, np.random.default_rng(0), domain))
    assert not np.array_equal(picture, render(one, np.random.default_rng(1), domain))
    assert not np.array_equal(picture, render(other, np.random.default_rng(0), domain))


def test_night_is_darker_and_less_colourful() -> None:
    identities = sample_identities(count=20, seed=4, half=0)
    day = np.stack([render(v, np.random.default_rng(i), Domain.DAY) for i, v in enumerate(identities)])
    night = np.stack([render(v, np.random.default_rng(i), Domain.NIGHT) for i, v in enumerate(identities)])
    assert night.mean() < 0.75 * day.mean()
    assert np.ptp(night.mean(axis=(1, 2)), axis=-1).mean() < 60


@pytest.mark.parametrize("body", BODIES)
def test_every_body_stays_inside_the_picture(body: str) -> None:
    vehicles = [v for v in sample_identities(count=200, seed=8, half=0) if v.body == body][:5]
    assert vehicles
    for i, vehicle in enumerate(vehicles):
        shape = build_shape(vehicle)
        camera = sample_camera(shape, np.random.default_rng(i))
        pixels = np.asarray(camera.project([(x, y, z) for x, z in shape.profile for y in (0.0, shape.width)]))
        assert pixels[:, 0].min() > -8 and pixels[:, 0].max() < 264
        assert 0.60 * 256 < np.ptp(pixels[:, 0]) < 0.92 * 256 or np.ptp(pixels[:, 1]) > 0.6 * 160


def test_camera_without_angles_is_a_plain_side_view() -> None:
    camera = Camera(yaw=0.0, pitch=0.0, roll=0.0, scale=10.0, centre=(5.0, 7.0), mirrored=False)
    assert camera.project([(0.0, 0.0, 0.0), (2.0, 0.0, 1.0)]) == [(5.0, 7.0), (25.0, -3.0)]
    assert camera.faces(normal=(0.0, -1.0, 0.0)) == 1.0
    assert camera.faces(normal=(1.0, 0.0, 0.0)) == 0.0


def test_every_mark_has_an_outline_and_others_are_refused() -> None:
    for shape in MARK_SHAPES:
        outlines = mark_polygons(shape, radius=1.0)
        assert outlines and all(len(outline) >= 3 for outline in outlines)
    with pytest.raises(ValueError, match="unknown mark shape 'star'"):
        mark_polygons("star", radius=1.0)


# ---------------------------------------------------------------- on the disk


def test_layout_is_that_of_dn348(tmp_path: Path) -> None:
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    root = tmp_path / "dnmini"
    train, test = raw_ids(Parameters(**SMALL))
    assert len(train) == 3 and len(test) == 2 and sorted(train + test) == [1, 2, 3, 4, 5]
    for split, ids in (("train", train), ("test", test)):
        for name in ("day", "night"):
            lines = (root / "train_test_split" / f"{split}_list_{name}.txt").read_text().splitlines()
            assert [int(line.split("/")[0]) for line in lines] == [i for i in ids for _ in range(2)]
            for line in lines:
                with Image.open(root / name / line) as image:
                    assert image.format == "JPEG" and image.size == (128, 80)
    assert [p.name for p in tmp_path.iterdir()] == ["dnmini"]  # no temporary folder is left


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 2, 3):
        write_dnmini(tmp_path / str(workers), **SMALL, workers=workers)
    assert all_bytes(tmp_path / "1") == all_bytes(tmp_path / "2") == all_bytes(tmp_path / "3")


def test_another_seed_is_another_set(tmp_path: Path) -> None:
    write_dnmini(tmp_path / "a", **SMALL, workers=1)
    write_dnmini(tmp_path / "b", **{**SMALL, "seed": 4}, workers=1)
    contents = [json.loads((tmp_path / n / MANIFEST).read_text())["content_sha256"] for n in "ab"]
    assert contents[0] != contents[1]


def test_writing_again_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    monkeypatch.setattr(write_module, "_write_all", lambda *_, **__: pytest.fail("rendered again"))
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="holds something else than DNMini"):
        write_dnmini(tmp_path, **SMALL, workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_set_of_other_parameters_is_refused(tmp_path: Path) -> None:
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    with pytest.raises(ValueError, match="delete it or give another root"):
        write_dnmini(tmp_path / "dnmini", **{**SMALL, "images_per_domain": 1}, workers=1)


def test_the_manifest_of_the_demos_set_keeps_its_form(tmp_path: Path) -> None:
    """Sets that were rendered before a test identity could have its own number of images are still accepted."""
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    manifest = json.loads((tmp_path / "dnmini" / MANIFEST).read_text())
    assert manifest["parameters"] == {**SMALL, "renderer_version": 1}


def test_test_identities_may_have_fewer_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {**SMALL, "test_images_per_domain": 1}
    write_dnmini(tmp_path / "a", **SMALL, workers=1)
    write_dnmini(tmp_path / "b", **fewer, workers=1)
    train, test = raw_ids(Parameters(**SMALL))
    for split, ids, count in (("train", train, 2), ("test", test, 1)):
        for name in ("day", "night"):
            lines = (
                (tmp_path / "b" / "train_test_split" / f"{split}_list_{name}.txt").read_text().splitlines()
            )
            assert lines == [f"{i:05d}/{view:03d}.jpg" for i in ids for view in range(count)]
            for i in ids:
                names = sorted(path.name for path in (tmp_path / "b" / name / f"{i:05d}").iterdir())
                assert names == [f"{view:03d}.jpg" for view in range(count)]
            # the images that both sets have are the same
            for line in lines:
                assert (tmp_path / "a" / name / line).read_bytes() == (
                    tmp_path / "b" / name / line
                ).read_bytes()
    write_module._verify.cache_clear()
    monkeypatch.setattr(write_module, "_write_all", lambda *_, **__: pytest.fail("rendered again"))
    write_dnmini(tmp_path / "b", **fewer, workers=1)
    with pytest.raises(ValueError, match="delete it or give another root"):
        write_dnmini(tmp_path / "b", **SMALL, workers=1)


def test_protocol_2_reads_its_own_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, dict[str, int]]] = []
    monkeypatch.setattr(write_module, "write_dnmini", lambda root, **sizes: seen.append((root.name, sizes)))
    monkeypatch.setattr(SETTINGS, "dnmini_seed", 1003)
    assert DNMini2(tmp_path).find_root(tmp_path) == tmp_path / "dnmini2-seed1003"
    assert DNMini(tmp_path).find_root(tmp_path) == tmp_path / "dnmini-seed1003"
    sizes = {"num_test_ids": 200, "test_images_per_domain": 8}
    # two readers, each looks once when it is built and once when it is asked
    assert (
        seen
        == [("dnmini2-seed1003", {"seed": 1003, **sizes})] * 2 + [("dnmini-seed1003", {"seed": 1003})] * 2
    )


def test_a_failing_writer_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(write_module, "_lists", fail)
    with pytest.raises(OSError, match="disk full"):
        write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_the_second_of_two_writers_accepts_the_first_ones_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = write_module._write_all

    def overtaken(folder: Path, parameters: Parameters, *, workers: int | None) -> None:
        original(folder, parameters, workers=workers)
        monkeypatch.setattr(write_module, "_write_all", original)
        if not (tmp_path / "dnmini").exists():
            other = tmp_path / "elsewhere"
            write_dnmini(other, **SMALL, workers=1)
            other.rename(tmp_path / "dnmini")

    monkeypatch.setattr(write_module, "_write_all", overtaken)
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["dnmini"]


@pytest.mark.parametrize("name", [*(name for name in SMALL if name != "seed"), "test_images_per_domain"])
def test_empty_sets_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be >= 1, got 0"):
        write_dnmini(tmp_path / "dnmini", **{**SMALL, name: 0}, workers=1)


def test_ensure_names_the_folder_after_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, int]] = []
    monkeypatch.setattr(write_module, "write_dnmini", lambda root, *, seed: seen.append((root, seed)))
    assert ensure_dnmini(tmp_path) == tmp_path / "dnmini"
    assert ensure_dnmini(tmp_path, seed=9) == tmp_path / "dnmini-seed9"
    assert seen == [(tmp_path / "dnmini", 0), (tmp_path / "dnmini-seed9", 9)]


def test_contact_sheet_has_one_row_per_vehicle_and_both_domains() -> None:
    sheet = contact_sheet(seed=3, num_ids=2, views=2)
    assert sheet.size == (4 * 128 + 4, 2 * 80 + 4)
    picture = np.asarray(sheet)
    assert (picture[80:84] == 255).all() and (picture[:, 256:260] == 255).all()
    assert picture[:80, 260:].mean() < picture[:80, :256].mean()
