"""LLCM: lists for training, camera folders for testing, ten galleries in both directions, every broken copy."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from dnreid_plugins.data.datasets import LLCM
from dnreid_plugins.data.datasets.counts import STAND_IN
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.dnmini.stand_ins import write_stand_in


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root's name holds "cam", which the released loaders take for a camera."""
    return write_stand_in("LLCM", tmp_path_factory.mktemp("cam5 data"), workers=1)


@pytest.fixture
def root(rendered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rendered, tmp_path / "LLCM"))


def test_items_have_the_cameras_of_their_paths(rendered: Path) -> None:
    data = LLCM(rendered.parent)
    assert len(data.train) == 128 + 118 and len(data.test) == 64 + 58
    for item in data.train:
        identity, camera = Path(item.path).name.split("_")[:2]
        assert item.pid == f"llcm_{int(identity) - 1}" and item.camid == f"llcm_{int(camera[1:])}"
        assert item.domain == (Path(item.path).stem.endswith("nir"))
    for item in data.test:
        folder = Path(item.path).parent
        assert item.pid == int(folder.name) and folder.parent.name == f"cam{item.camid}"
        assert folder.parents[1].name == ("test_nir" if item.domain else "test_vis")
    assert {item.camid for item in data.test if item.domain} == {1, 2, 4, 5, 6, 7, 8, 9}
    assert [item.path for item in LLCM(rendered).test] == [item.path for item in data.test]


def test_galleries_are_those_of_the_released_code(rendered: Path) -> None:
    data = LLCM(rendered)
    assert data.protocol is not None
    ids = sorted(int(word) for word in (rendered / "idx" / "test_id.txt").read_text().split(","))
    for direction, word, cameras in (("D2N", "nir", (1, 2, 4, 5, 6, 7, 8, 9)), ("N2D", "vis", range(1, 10))):
        asking = [data.test[i].domain for i in data.protocol[direction].query]
        assert len(asking) == (64 if word == "nir" else 58) and len(set(asking)) == 1
        galleries = data.protocol[direction].galleries
        assert len(galleries) == 10
        for trial, gallery in enumerate(galleries):
            random.seed(trial)
            expected = []
            for pid in ids:
                for camera in cameras:
                    folder = rendered / f"test_{word}" / f"cam{camera}" / f"{pid:04d}"
                    if folder.is_dir():
                        expected.append(random.choice(sorted(str(path) for path in folder.iterdir())))
            assert [data.test[i].path for i in gallery] == expected


def test_the_protocol_says_its_rule(rendered: Path) -> None:
    text = str(LLCM(rendered).protocol)
    assert text.startswith("LLCM: D2N 64 queries, 29 in the gallery (mean of 10 galleries), N2D 58 queries")
    assert "same identity and camera removed; identity-level CMC at 1, 5, 10, 20" in text
    assert text.endswith("; a stand-in, not the real set")


def test_without_its_mark_a_stand_in_is_known_by_its_counts(root: Path) -> None:
    (root / STAND_IN).unlink()
    assert str(LLCM(root).protocol).endswith(
        "; differs from the published data set in test visible images 64 (published: 8680, difference -8616)"
    )


def test_a_training_path_need_not_name_a_camera(root: Path) -> None:
    (root / "vis" / "0001" / "cam.jpg").write_bytes(
        (root / "vis" / "0001" / "0001_c04_s000001_f0001_vis.jpg").read_bytes()
    )
    (root / "vis" / "cam8").mkdir()
    shutil.copy(root / "vis" / "0001" / "cam.jpg", root / "vis" / "cam8" / "x.jpg")
    (root / "idx" / "train_vis.txt").write_text("vis/0001/cam.jpg 0\nvis\\cam8\\x.jpg 1\n")
    cameras = [item.camid for item in LLCM(root).train if not item.domain]
    assert cameras == ["llcm_0", "llcm_8"]


def test_broken_copies_are_one_sentence(root: Path) -> None:
    listed = root / "idx" / "train_nir.txt"
    lines = listed.read_text().splitlines()
    for line, message in (
        ("nir/0001/x.jpg", "line 1: .* is not '<path> <label>'"),
        ("nir/0001/x.jpg one", "line 1: 'one' is not an integer"),
        ("../x.jpg 1", "line 1: .* is outside the data folder"),
        (f"{lines[0]}\n{lines[0]}1", "identity 0 and 1; keep one"),
        ("nir/0001/x.jpg 1", "1 of the 1 images .* are missing"),
        ("", "names no night image"),
    ):
        listed.write_text(line)
        with pytest.raises(DataError, match=message):
            _ = LLCM(root).train
    listed.unlink()
    with pytest.raises(DataError, match=r"no near-infrared train list in .*train_nir.txt"):
        _ = LLCM(root).train
    (root / "test_nir" / "cam4").rename(root / "test_nir" / "four")
    with pytest.raises(DataError, match="no folder cam4; the layout is cam<number>/<identity>/<image>"):
        _ = LLCM(root).test
    (root / "idx" / "test_id.txt").write_text("17;18")
    with pytest.raises(DataError, match="'17;18' is not an integer identity"):
        _ = LLCM(root).test
