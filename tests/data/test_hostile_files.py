"""What lies in a user's folders and is no plain image: named pipes, links, and files that would start a program."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from fastreid.config import get_cfg
from fastreid.data import data_utils
from PIL import Image, PngImagePlugin

from dnreid_plugins.data.datasets import DayNightFolder, configure
from dnreid_plugins.data.datasets.files import list_images
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.images import read_image

AREA = "users' folders"
COLOUR = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def crops(tmp_path: Path, write_images) -> Path:
    write_images(tmp_path / "day", ["1/a.jpg", "2/b.jpg"])
    write_images(tmp_path / "night", ["1/c.jpg", "2/d.jpg"])
    return tmp_path


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``gs`` first in PATH that notes that it was called."""
    called, program = tmp_path / "called", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {called}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    return called


def names(paths: list[str]) -> list[str]:
    return [Path(path).name for path in paths]


@pytest.mark.attack(AREA, "an EPS under the name of a JPEG starts no program")
def test_an_eps_under_another_name_starts_no_program(crops: Path, ghostscript: Path) -> None:
    path = crops / "day" / "1" / "e.jpg"
    path.write_bytes(EPS)
    for read in (read_image, data_utils.read_image):
        with pytest.raises(DataError, match=r"e\.jpg' cannot be read \(cannot identify image file"):
            read(str(path))
    with pytest.raises(DataError, match="1 of 5 images cannot be used"):
        _ = DayNightFolder(crops).train
    assert not ghostscript.exists()


@pytest.mark.attack(AREA, "a named pipe under the name of a JPEG keeps nobody waiting")
def test_a_named_pipe_keeps_nobody_waiting(crops: Path, caplog: pytest.LogCaptureFixture) -> None:
    os.mkfifo(crops / "day" / "1" / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe\.jpg' cannot be read \(it is no regular file\); replace it"):
        read_image(str(crops / "day" / "1" / "pipe.jpg"))
    with pytest.raises(DataError, match="1 of 5 images cannot be used"):
        _ = DayNightFolder(crops).train


@pytest.mark.attack(AREA, "a linked sub-folder is read")
def test_a_linked_folder_is_read(crops: Path, write_images, caplog: pytest.LogCaptureFixture) -> None:
    write_images(crops / "elsewhere", ["e.jpg", "deep/f.jpg"])
    (crops / "day" / "3").symlink_to(crops / "elsewhere")
    (crops / "elsewhere" / "night").symlink_to(crops / "night" / "1")
    with caplog.at_level(logging.WARNING):
        found = list_images(crops / "day")
    assert names(found) == ["a.jpg", "b.jpg", "f.jpg", "e.jpg", "c.jpg"] and not caplog.records
    assert {Path(item.path).name for item in DayNightFolder(crops).train} >= {"e.jpg", "f.jpg"}


@pytest.mark.attack(AREA, "a linked folder that leads back or nowhere is left out and said")
@pytest.mark.parametrize("target", [".", "..", "2", "gone"])
def test_a_link_that_leads_back_or_nowhere_is_said(
    crops: Path, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    link = crops / "day" / "1" / "loop"
    link.symlink_to(
        {".": crops / "day" / "1", "..": crops / "day", "2": crops / "day" / "2"}.get(target, "gone")
    )
    with caplog.at_level(logging.WARNING):
        assert names(list_images(crops / "day")) == ["a.jpg", "b.jpg"]
    (record,) = caplog.records
    assert (
        "1 links are left out, since they lead nowhere or to a folder that is read already" in record.message
    )
    assert str(link) in record.message


@pytest.mark.attack(AREA, "two links to one folder: its images come once")
def test_a_folder_that_two_links_name_is_read_once(
    crops: Path, write_images, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(crops / "elsewhere", ["e.jpg"])
    for name in ("3", "4"):
        (crops / "day" / name).symlink_to(crops / "elsewhere")
    assert names(list_images(crops / "day")) == ["a.jpg", "b.jpg", "e.jpg"]
    assert str(crops / "day" / "4") in caplog.text


@pytest.mark.attack(AREA, "a folder that may not be read is refused")
def test_a_forbidden_folder_is_refused(crops: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def forbidden(path: str) -> object:
        if str(path).endswith("day/2"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidden)
    with pytest.raises(DataError, match=r"folder .*day/2' cannot be read: Permission denied"):
        _ = DayNightFolder(crops).train


@pytest.fixture(autouse=True)
def _fresh_settings() -> object:
    yield
    configure(get_cfg())


@pytest.mark.attack("odd images", "an animated PNG gives its first frame")
def test_an_animated_png_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)
    first.save(tmp_path / "moving.png", save_all=True, append_images=[second], duration=40)
    with Image.open(tmp_path / "moving.png") as image:
        assert isinstance(image, PngImagePlugin.PngImageFile) and image.n_frames == 2
    assert (np.asarray(read_image(str(tmp_path / "moving.png"))) == COLOUR).all()


@pytest.mark.attack("odd images", "every EXIF rotation is undone, a damaged EXIF block ignored")
@pytest.mark.parametrize("orientation", range(10))
def test_every_exif_rotation_is_undone(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).save(tmp_path / "turned.png", exif=exif)
    turned = np.asarray(read_image(str(tmp_path / "turned.png")))
    flips = {2: COLOUR[:, ::-1], 3: COLOUR[::-1, ::-1], 4: COLOUR[::-1], 5: COLOUR.swapaxes(0, 1)}
    flips |= {6: np.rot90(COLOUR, -1), 7: np.rot90(COLOUR.swapaxes(0, 1), 2), 8: np.rot90(COLOUR)}
    assert np.array_equal(turned, flips.get(orientation, COLOUR))


@pytest.mark.attack("odd images", "a 16-bit colour PNG is scaled to 8 bit")
def test_sixteen_bit_colour_is_scaled(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (COLOUR.astype(">u2") * 257).reshape(12, -1)
    data = b"".join(b"\0" + row.tobytes() for row in rows)
    content = chunk(b"IHDR", struct.pack(">IIBBBBB", 10, 12, 16, 2, 0, 0, 0))
    content += chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert (np.asarray(read_image(str(tmp_path / "deep.png"))) == COLOUR).all()


@pytest.mark.attack("odd images", "floats, with or without NaN: refused before training")
@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
@pytest.mark.parametrize("name", ["f.tif", "f.png", "f.ppm"])
def test_floats_are_refused(crops: Path, name: str, value: float) -> None:
    """What no 8-bit image can hold never becomes a black or random picture; a TIFF is known by its bytes."""
    pixels = np.full((12, 10), 0.25, np.float32)
    pixels[3, 4] = value
    path = crops / "day" / "1" / name
    Image.fromarray(pixels).save(path, format="PPM" if name.endswith("ppm") else "TIFF")
    with pytest.raises(DataError, match=r"f\.\w+' cannot be read \(its 32-bit floats have no known range"):
        read_image(str(path))
    with pytest.raises(DataError, match="1 of 5 images cannot be used"):
        _ = DayNightFolder(crops).train
