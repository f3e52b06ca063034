"""DNMiniWild: its vehicles, its pictures, and what stands on the disk."""

from __future__ import annotations

import io
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_helpers import all_bytes

from dnreid_plugins.data.datasets.settings import SETTINGS
from dnreid_plugins.dnmini import DNMiniWild, contact_sheet, ensure_dnmini, write_dnmini
from dnreid_plugins.dnmini import write as write_module
from dnreid_plugins.dnmini.pretrain import PretrainOptions
from dnreid_plugins.dnmini.source import ATTRIBUTES, IGNORED, coarse_labels, source_set
from dnreid_plugins.dnmini.wild.bodies import build
from dnreid_plugins.dnmini.wild.camera import CAMERAS, aim, camera_number, camera_of
from dnreid_plugins.dnmini.wild.identity import BODIES, WildIdentity, sample_wild_identities
from dnreid_plugins.dnmini.wild.light import trace
from dnreid_plugins.dnmini.wild.render import wild_jpeg
from dnreid_plugins.dnmini.wild.scene import sample_scene
from dnreid_plugins.dnmini.write import MANIFEST, SIZES, Parameters, raw_ids
from dnreid_plugins.functional.types import Domain

SMALL = {
    "num_train_ids": 3,
    "num_test_ids": 2,
    "images_per_domain": 4,
    "night_images": 2,
    "test_images_per_domain": 2,
    "test_night_images": 3,
    "queries_per_domain": 1,
    "world": "wild",
}


# ---------------------------------------------------------------- vehicles


def test_identities_are_distinct_and_a_function_of_the_seed() -> None:
    first = sample_wild_identities(count=300, seed=5, half=0)
    assert len(set(first)) == 300 and {one.body for one in first} == set(BODIES)
    assert first[:10] == sample_wild_identities(count=10, seed=5, half=0)
    assert set(first).isdisjoint(sample_wild_identities(count=300, seed=6, half=0))
    assert {one.half() for one in first} == {0}
    assert {one.half() for one in sample_wild_identities(count=20, seed=5, half=1)} == {1}
    with pytest.raises(ValueError, match="half must be 0"):
        sample_wild_identities(count=1, seed=0, half=2)
    with pytest.raises(ValueError, match="count must be >= 0"):
        sample_wild_identities(count=-1, seed=0, half=0)


def test_the_start_has_seen_no_vehicle_of_a_set() -> None:
    options = PretrainOptions(world="wild")
    source = sample_wild_identities(count=options.num_ids, seed=options.seed, half=1)
    for seed in (1, 2, 7, 1000):
        assert set(sample_wild_identities(count=500, seed=seed, half=0)).isdisjoint(source)


def test_its_pretraining_learns_this_worlds_attributes_by_day() -> None:
    source = source_set(2, 2, 5, world="wild", workers=1)
    names = list(ATTRIBUTES["wild"])
    assert source.images.shape == (4, 80, 128, 3) and source.labels.shape == (4, len(names))
    assert all(isinstance(one, WildIdentity) and one.half() == 1 for one in source.identities)
    for vehicle in sample_wild_identities(count=60, seed=0, half=1):
        for name, label in zip(names, coarse_labels(vehicle, ATTRIBUTES["wild"]), strict=True):
            if name == "decal_colour" and vehicle.decal == "none":
                assert label == IGNORED
            else:
                assert ATTRIBUTES["wild"][name][label] == getattr(vehicle, name)


# ---------------------------------------------------------------- pictures


def light_of(vehicle: WildIdentity, number: int, *, night: bool) -> np.ndarray:
    """What camera ``number`` gets of a vehicle that stands alone in dry air, before lens and noise."""
    solids = build(vehicle)
    rng = np.random.default_rng(1)
    eye = aim(camera_of(0, number), build(VEHICLES["saloon"]), rng)  # not cut after what the vehicle measures
    scene = replace(sample_scene(np.random.default_rng(3), night=night), fog=0.0, wet=0.0)
    light, glow = trace(scene, eye, solids, own=len(solids))
    return np.concatenate([light, glow])


ANY = sample_wild_identities(count=1, seed=8, half=0)[0]
VEHICLES = {body: replace(ANY, body=body, decal="band", bonnet="stripe") for body in ("saloon", "flatbed")}


@pytest.mark.parametrize("name", [one.name for one in fields(WildIdentity)])
def test_every_attribute_is_seen(name: str) -> None:
    """A vehicle that differs in one attribute only looks different to one camera at least."""
    vehicle = VEHICLES["flatbed" if name == "cargo" else "saloon"]
    others = (one for one in sample_wild_identities(count=50, seed=9, half=0))
    value = next(getattr(one, name) for one in others if getattr(one, name) != getattr(vehicle, name))
    other = replace(vehicle, **{name: value})
    assert any(
        np.abs(light_of(vehicle, number, night=False) - light_of(other, number, night=False)).max() > 0.01
        for number in range(4)
    )


@pytest.mark.parametrize("number", [0, 1], ids=["front", "rear"])
@pytest.mark.parametrize("name", ["plate", "plate_place"])
def test_number_plates_are_at_both_ends(name: str, number: int) -> None:
    vehicle = VEHICLES["saloon"]
    value = (
        ("yellow" if vehicle.plate == "white" else "white")
        if name == "plate"
        else (-vehicle.plate_place or 1)
    )
    other = replace(vehicle, **{name: value})
    one, two = (light_of(each, number, night=False) for each in (vehicle, other))
    assert np.abs(one - two).max() > 0.01


@pytest.mark.parametrize("domain", list(Domain))
def test_a_picture_is_a_function_of_its_numbers(domain: Domain) -> None:
    one, other = sample_wild_identities(count=2, seed=2, half=0)
    data = wild_jpeg(one, 5, domain, 1, 0)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG" and image.size == (128, 80) and image.mode == "RGB"
    assert data == wild_jpeg(one, 5, domain, 1, 0)
    changed = [(other, 5, domain, 1, 0), (one, 6, domain, 1, 0), (one, 5, domain.other, 1, 0)]
    changed += [(one, 5, domain, 2, 0), (one, 5, domain, 1, 1)]
    assert len({data, *(wild_jpeg(*arguments) for arguments in changed)}) == 6


def test_a_vehicle_passes_four_cameras_by_day_and_two_of_them_by_night() -> None:
    for identity in range(1, 6):
        day, night = ([camera_number(3, domain, identity, view) for view in range(8)] for domain in Domain)
        assert day[:4] == day[4:] and night[:4] == night[4:]
        assert len(set(day)) == len(set(night)) == 4 and len(set(day) & set(night)) == 2
        assert set(day + night) <= set(range(CAMERAS))
    assert camera_of(3, 0).distance != camera_of(4, 0).distance != camera_of(4, 1).distance


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """(2 domains, 12 vehicles, 4 views, 80, 128, 3) uint8."""
    vehicles = sample_wild_identities(count=12, seed=4, half=0)
    return np.stack(
        [
            [
                [np.asarray(Image.open(io.BytesIO(wild_jpeg(v, 4, d, i, k)))) for k in range(4)]
                for i, v in enumerate(vehicles)
            ]
            for d in Domain
        ]
    )


def test_night_is_darker_noisier_and_lit_by_lamps(pictures: np.ndarray) -> None:
    day, night = (part.reshape(-1, 80, 128, 3).astype(float) for part in pictures)
    assert night.mean() < 0.75 * day.mean()
    contrast = [
        np.percentile(part, 99.5, axis=(1, 2, 3)) / np.median(part, axis=(1, 2, 3)) for part in (day, night)
    ]
    assert np.median(contrast[1]) > 1.5 * np.median(contrast[0])


def test_identities_can_be_told_apart_within_and_across_domains(pictures: np.ndarray) -> None:
    """By the mean colours of 5 x 8 cells less the mean of the domain; chance is 0.06 by day and 0.08 across."""
    cells = pictures.reshape(2, 48, 5, 16, 8, 16, 3).mean(axis=(3, 5)).reshape(2, 48, -1)
    cells = cells - cells.mean(axis=1, keepdims=True)
    cells /= np.linalg.norm(cells, axis=2, keepdims=True)
    vehicle = np.repeat(np.arange(12), 4)
    same = vehicle[:, None] == vehicle

    def hits(query: np.ndarray, gallery: np.ndarray, *, itself: bool) -> float:
        similarity = query @ gallery.T - (10.0 * np.eye(48) if itself else 0.0)
        return float(same[np.arange(48), similarity.argmax(axis=1)].mean())

    within, across = hits(cells[0], cells[0], itself=True), hits(cells[0], cells[1], itself=False)
    assert within > 0.2 and across > 0.2


def test_the_contact_sheet_shows_this_world() -> None:
    sheet = contact_sheet(seed=3, num_ids=1, views=1, world="wild")
    assert sheet.size == (2 * 128 + 4, 80)
    assert np.asarray(sheet)[:, :128].mean() > np.asarray(sheet)[:, 132:].mean()
    assert sheet.tobytes() != contact_sheet(seed=3, num_ids=1, views=1).tobytes()


# ---------------------------------------------------------------- on the disk


def test_layout_is_that_of_dn_wild(tmp_path: Path) -> None:
    write_dnmini(tmp_path / "set", seed=3, **SMALL, workers=1)
    root = tmp_path / "set"
    train, test = raw_ids(Parameters(3, 3, 2, 4))
    counts = {
        "train": {"day": 4, "night": 2},
        "test": {"day": 2, "night": 3},
        "query": {"day": 1, "night": 1},
    }
    for split, of in counts.items():
        for word, count in of.items():
            lines = (root / "train_test_split" / f"{split}_list_{word}.txt").read_text().splitlines()
            ids = train if split == "train" else test
            assert lines == [f"{i:05d}/{view:03d}.jpg" for i in ids for view in range(count)]
            assert all((root / word / line).is_file() for line in lines)
    assert len(list(root.rglob("*.jpg"))) == 3 * 6 + 2 * 5
    manifest = json.loads((root / MANIFEST).read_text())
    assert manifest["parameters"] == {"seed": 3, **SMALL, "renderer_version": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["set"]


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    for workers in (1, 3):
        write_dnmini(tmp_path / str(workers), seed=3, **SMALL, workers=workers)
    assert all_bytes(tmp_path / "1") == all_bytes(tmp_path / "3")


def test_a_changed_image_by_night_or_query_list_is_refused(tmp_path: Path) -> None:
    for name, change in (("night/00001/001.jpg", b"x"), ("train_test_split/query_list_day.txt", b"\n")):
        root = tmp_path / name.replace("/", "-")
        write_dnmini(root, seed=3, **SMALL, workers=1)
        (root / name).write_bytes((root / name).read_bytes() + change)
        write_module._verify.cache_clear()
        with pytest.raises(ValueError, match="is not DNMini as it was rendered: .*; delete the folder"):
            write_dnmini(root, seed=3, **SMALL, workers=1)


@pytest.mark.parametrize("wrong", [{"world": "mars"}, {"night_images": 0}, {"queries_per_domain": 0}])
def test_wrong_sizes_and_worlds_are_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(ValueError, match="world is 'mars'; choose one of dnmini, wild|must be >= 1, got 0"):
        write_dnmini(tmp_path / "set", **{**SMALL, **wrong}, workers=1)
    assert not list(tmp_path.iterdir())


def test_the_reader_renders_and_scores_as_dn_wild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "dnminiwild", SMALL)
    monkeypatch.setattr(SETTINGS, "dnmini_seed", 1004)
    data = DNMiniWild(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dnminiwild-seed1004"]
    assert [sum(item.domain == domain for item in data.train) for domain in Domain] == [12, 6]
    assert {item.pid.split("_")[0] for item in data.train} == {"dnminiwild"}
    for direction, gallery in (("D2N", 6), ("N2D", 4)):
        assert len(data.protocol[direction].query) == 2 and len(data.protocol[direction].gallery) == gallery
    assert str(data.protocol).startswith("DNMiniWild: ")
    monkeypatch.setattr(SETTINGS, "dnwild_all_queries", True)
    every = DNMiniWild(tmp_path).protocol
    assert [len(every[d].query) for d in ("D2N", "N2D")] == [4, 6]


def test_its_published_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as many images by day as by night, three times the training identities of DNMini."""
    seen: list[dict] = []
    monkeypatch.setattr(
        write_module, "write_dnmini", lambda root, **sizes: seen.append({"root": root.name, **sizes})
    )
    ensure_dnmini(tmp_path, 2, name="dnminiwild")
    assert seen[0].pop("root") == "dnminiwild-seed2"
    sizes = Parameters(**seen[0])
    assert (sizes.num_train_ids, sizes.num_test_ids) == (300, 200)
    per_identity = {s: [len(sizes.views(s, d)) for d in Domain] for s in ("train", "test", "query")}
    assert per_identity == {"train": [16, 8], "test": [6, 8], "query": [4, 4]}
