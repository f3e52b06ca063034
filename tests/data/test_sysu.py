"""SYSU-MM01: six cameras, two searches, ten galleries, and every broken copy in one sentence."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import numpy as np
import pytest
from fastreid.config import CfgNode
from PIL import Image
from run_helpers import cut_and_resumed, same, train, weights
from six_cameras import CAMERAS, write_six_cameras

from dnreid_plugins.data.datasets import SYSUMM01
from dnreid_plugins.data.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_six_cameras(tmp_path / "cam9 data")


def test_the_reader_knows_cameras_and_domains(root: Path) -> None:
    dataset = SYSUMM01(root.parent)
    assert len(dataset.train) == 6 * (4 + 2) * 2 and len(dataset.test) == 4 * (4 + 2) * 2
    seen = {(item.camid, int(item.domain)) for item in dataset.train}
    assert seen == {(f"sysu_{camera}", domain) for camera, domain in CAMERAS.items()}
    assert {item.pid for item in dataset.train} == {f"sysu_{n}" for n in range(6)}
    assert {(item.camid, int(item.domain)) for item in dataset.test} == set(CAMERAS.items())
    assert [item.path for item in SYSUMM01(root).train] == [item.path for item in dataset.train]


def test_the_protocol_is_the_papers(root: Path) -> None:
    dataset = SYSUMM01(root)
    test, protocol = dataset.test, dataset.protocol
    assert protocol is not None
    cameras = {"N2D": (1, 2, 4, 5), "N2D indoor": (1, 2)}
    for name, shots in (("", 1), (" multi-shot", 2)):  # two images per identity and camera are all there are
        for search, own in cameras.items():
            direction = protocol[search + name]
            assert all(test[i].camid in (3, 6) for i in direction.query) and len(direction.query) == 16
            assert len(direction.galleries) == 10
            assert len({tuple(sorted(one)) for one in direction.galleries}) == (10 if shots == 1 else 1)
            for gallery in direction.galleries:
                assert [(test[i].pid, test[i].camid) for i in gallery] == [
                    (pid, camera) for pid in range(6, 10) for camera in own for _ in range(shots)
                ]
    assert str(protocol).startswith(
        "SYSU-MM01: N2D 16 queries, 16 in the gallery (mean of 10 galleries), N2D indoor"
    )
    assert "camera 2 for queries of camera 3 removed; identity-level CMC at 1, 5, 10, 20" in str(protocol)
    assert str(protocol).endswith(
        "differs from the published data set in test identities 4 (published: 96, difference -92)"
    )


def released_gallery(root: Path, ids: list[int], cameras: tuple[int, ...], trial: int) -> list[str]:
    """What the released evaluation draws, written down from its description: a global seed, sorted files, a choice."""
    state = random.getstate()
    random.seed(trial)
    found = []
    for pid in sorted(ids):
        for camera in cameras:
            folder = root / f"cam{camera}" / f"{pid:04d}"
            if folder.is_dir():
                found.append(random.choice(sorted(str(path) for path in folder.iterdir())))
    random.setstate(state)
    return found


def test_galleries_are_those_of_the_released_code(root: Path) -> None:
    rng = np.random.default_rng(0)
    for camera in (
        1,
        2,
        4,
        5,
    ):  # as many images as in a real set, unequal, and a person whom a camera never saw
        for pid in range(6, 10):
            for number in range(int(rng.integers(3, 25))):
                Image.new("RGB", (4, 4)).save(root / f"cam{camera}" / f"{pid:04d}" / f"{number + 10:04d}.jpg")
    for path in (root / "cam2" / "0007").iterdir():
        path.unlink()
    (root / "cam2" / "0007").rmdir()
    dataset = SYSUMM01(root)
    assert dataset.protocol is not None
    for name, cameras in (("N2D", (1, 2, 4, 5)), ("N2D indoor", (1, 2))):
        for trial, gallery in enumerate(dataset.protocol[name].galleries):
            found = [dataset.test[i].path for i in gallery]
            assert found == released_gallery(root, [6, 7, 8, 9], cameras, trial)


def test_stray_files_change_no_draw(root: Path) -> None:
    before = [gallery.tolist() for gallery in SYSUMM01(root).protocol["N2D"].galleries]
    folder = root / "cam1" / "0006"
    for name in ("Thumbs.db", ".hidden.png", "0000.txt"):
        (folder / name).write_bytes(b"x")
    assert [gallery.tolist() for gallery in SYSUMM01(root).protocol["N2D"].galleries] == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1, two", "'two' is not an integer identity"),
        ("", "names no identity"),
        ("-3", "'-3' is not an integer"),
        (None, r"no identities list in .* \(looked for val_id.txt\)"),
    ],
)
def test_a_broken_list_is_one_sentence(root: Path, text: str | None, message: str) -> None:
    path = root / "exp" / "val_id.txt"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=message):
        _ = SYSUMM01(root).train


def test_lists_may_be_untidy(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "exp" / "val_id.txt").write_text("\ufeff4 ,5,\r\n5, 77\r\n")
    assert len(SYSUMM01(root).train) == 72
    assert "1 identities have no image" in caplog.text and "the first is 0077" in caplog.text


def test_a_missing_camera_and_prepared_arrays_are_named(root: Path) -> None:
    (root / "cam6").rename(root / "camera six")
    with pytest.raises(DataError, match=r"no folder cam6; the layout is cam<number>/<identity>/<image>"):
        _ = SYSUMM01(root).test
    (root / "cam1").rename(root / "camera one")
    (root / "train_rgb_resized_img.npy").write_bytes(b"")
    with pytest.raises(DataError, match="prepared arrays .* put the original images there"):
        _ = SYSUMM01(root).train


def test_shared_identities_are_reported(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "exp" / "val_id.txt").write_text("4,6")
    dataset = SYSUMM01(root)
    with caplog.at_level(logging.WARNING):
        assert dataset.train and dataset.test
    assert "1 identities are in the training and the test list (one is sysu_6)" in caplog.text


def test_a_run_trains_and_resumes_inside_an_epoch_bit_exactly(
    root: Path, tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(root.parent))
    tiny_cfg.DATASETS.NAMES = tiny_cfg.DATASETS.TESTS = ("SYSUMM01",)
    whole = train(tiny_cfg)
    data = whole.train_data
    assert data is not None and data.images.cams.unique().tolist() == list(range(6))
    found = json.loads((Path(tiny_cfg.OUTPUT_DIR) / "results.json").read_text())
    results = found["SYSUMM01"]
    assert list(results) == ["N2D", "N2D indoor", "N2D multi-shot", "N2D indoor multi-shot"]
    assert results["N2D"]["galleries"] == 10 and results["N2D"]["std/mAP"] > 0
    assert found["protocol"]["SYSUMM01"].startswith("SYSU-MM01: ")
    assert "cosine distances" in found["protocol"]["SYSUMM01"]
    tiny_cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(tiny_cfg, 6)
    assert same(weights(resumed), weights(whole))
    assert resumed._last_eval_results == whole._last_eval_results
