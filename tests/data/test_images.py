"""Every kind of file becomes 8-bit RGB, or one sentence that names it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.images import read_image

GREY = (np.arange(12 * 10) * 2).astype(np.uint8).reshape(12, 10)
COLOUR = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)


def read(tmp_path: Path, image: Image.Image, name: str = "image.png", **options) -> np.ndarray:
    image.save(tmp_path / name, **options)
    result = read_image(str(tmp_path / name))
    assert result.mode == "RGB"
    return np.asarray(result)


def test_rgb_and_grey_are_exact(tmp_path: Path) -> None:
    assert (read(tmp_path, Image.fromarray(COLOUR)) == COLOUR).all()
    assert (read(tmp_path, Image.fromarray(GREY)) == GREY[..., None]).all()


def test_palette_gives_colours_not_indices(tmp_path: Path) -> None:
    image = Image.fromarray(GREY).convert("P")
    image.putpalette([255 - value for value in range(256) for _ in range(3)])
    expected = np.asarray(image.convert("RGB"))
    assert (read(tmp_path, image) == expected).all()
    assert (read(tmp_path, image, "i.png", transparency=3) == expected).all()
    assert (read(tmp_path, image, "i.gif") == expected).all()


def test_transparency_is_dropped_and_the_colour_beneath_stays(tmp_path: Path) -> None:
    alpha = np.full((12, 10, 1), 7, dtype=np.uint8)
    assert (read(tmp_path, Image.fromarray(np.concatenate([COLOUR, alpha], axis=2))) == COLOUR).all()
    grey_alpha = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(alpha[..., 0])))
    assert (read(tmp_path, grey_alpha) == GREY[..., None]).all()


def test_one_bit_and_cmyk(tmp_path: Path) -> None:
    bits = (GREY > 100).astype(np.uint8) * 255
    assert (read(tmp_path, Image.fromarray(bits).convert("1")) == bits[..., None]).all()
    cmyk = Image.fromarray(COLOUR).convert("CMYK")
    assert (read(tmp_path, cmyk, "image.tif") == np.asarray(cmyk.convert("RGB"))).all()


def test_sixteen_bit_is_scaled_not_clipped(tmp_path: Path) -> None:
    sixteen = Image.fromarray(GREY.astype(np.uint16) * 257)
    assert sixteen.mode.startswith("I;16")
    assert (read(tmp_path, sixteen) == GREY[..., None]).all()
    assert (read(tmp_path, sixteen, "image.tif") == GREY[..., None]).all()
    assert (read(tmp_path, Image.fromarray(GREY.astype(np.int32) * 257), "i32.tif") == GREY[..., None]).all()


def test_float_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(DataError, match=r"float\.tif.*32-bit floats"):
        read_image(str(tmp_path / "float.tif"))


def test_exif_orientation_is_applied_as_in_fastreid(tmp_path: Path) -> None:
    from fastreid.data import data_utils

    exif = Image.Exif()
    exif[0x0112] = 6
    path = str(tmp_path / "turned.jpg")
    Image.fromarray(COLOUR).save(path, exif=exif)
    ours = read_image(path)
    assert ours.size == (12, 10)
    assert (np.asarray(ours) == np.asarray(data_utils.read_image(path))).all()


def test_missing_and_damaged_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jpg' does not exist; restore it"):
        read_image(str(tmp_path / "gone.jpg"))
    for content in (b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"x" * 40):
        (tmp_path / "bad.jpg").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.jpg' cannot be read") as caught:
            read_image(str(tmp_path / "bad.jpg"))
        assert "\n" not in str(caught.value)


def test_truncated_jpeg_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.tile(COLOUR, (20, 20, 1))).save(path)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match="truncated"):
        read_image(str(path))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("originals")
    for suffix in ("jpg", "png", "bmp", "gif", "tif", "webp"):
        Image.fromarray(COLOUR).save(folder / f"image.{suffix}")
    return sorted(folder.iterdir())


@given(data=st.data())
def test_mutated_bytes_give_an_image_or_a_sentence(originals: list[Path], data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(originals))
    content = bytearray(original.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = original.parent.parent / f"mutated{original.suffix}"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        assert read_image(str(path)).mode == "RGB"
    except DataError as error:
        assert str(path) in str(error)
