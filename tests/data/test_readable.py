"""All images that cannot be read are named at once, or left out."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from fastreid.config import get_cfg
from PIL import Image

from dnreid_plugins.data import readable
from dnreid_plugins.data.datasets import DayNightFolder, configure
from dnreid_plugins.data.datasets.settings import SETTINGS
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.images import read_image


@pytest.fixture
def crops(tmp_path: Path, write_images) -> Path:
    """Three good images in each domain and, by day, one of every kind of bad file."""
    write_images(tmp_path / "day", ["a.jpg", "b.png", "c.bmp"])
    write_images(tmp_path / "night", ["d.jpg", "e.png", "f.webp"])
    day = tmp_path / "day"
    for name in ("a.jpg", "b.png", "c.bmp"):
        whole = (day / name).read_bytes()
        (day / f"cut-{name}").write_bytes(whole[: 2 * len(whole) // 3])
    (day / "empty.jpg").touch()
    (day / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(day / "float.tif")
    return tmp_path


def test_all_bad_images_are_named_at_once(crops: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(DataError, match=r"6 of 12 images cannot be used.*DATASETS.SKIP_BAD True"):
        _ = DayNightFolder(crops).train
    for name in ("cut-a.jpg", "cut-b.png", "cut-c.bmp", "empty.jpg", "text.png", "float.tif"):
        assert name in caplog.text
    assert f"image {str(crops / 'day' / 'a.jpg')!r}" not in caplog.text


def test_they_can_be_left_out(crops: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(SETTINGS, "skip_bad", False)
    cfg = get_cfg()
    cfg.DATASETS.SKIP_BAD = True
    configure(cfg)
    with caplog.at_level(logging.WARNING):
        train = DayNightFolder(crops).train
    assert [Path(item.path).name for item in train] == ["a.jpg", "b.png", "c.bmp", "d.jpg", "e.png", "f.webp"]
    assert all(read_image(item.path) for item in train)
    assert "6 of 12 images are left out" in caplog.text and "float.tif" in caplog.text


def test_good_common_files_are_not_decoded(crops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []
    monkeypatch.setattr(readable, "read_image", lambda path: decoded.append(Path(path).name))
    _ = DayNightFolder(crops).train
    assert {"a.jpg", "b.png", "d.jpg", "e.png"}.isdisjoint(decoded) and "cut-a.jpg" in decoded


def test_a_long_check_says_how_far_it_is(
    crops: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readable, "EVERY", 0.0)
    monkeypatch.setattr(readable, "_CHUNK", 2)
    with caplog.at_level(logging.INFO), pytest.raises(DataError):
        _ = DayNightFolder(crops).train
    assert "DayNightFolder: 4 of 12 images checked" in caplog.text
