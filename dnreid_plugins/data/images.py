"""Read any image file as 8-bit RGB."""

from __future__ import annotations

import base64
import contextlib
import errno
import io
import os
import stat
from typing import IO

import numpy as np
from PIL import Image, ImageOps

from .errors import DataError

# 16-bit grey is scaled by 255 / 65535, the same for every image, so that brightness stays comparable.
_SIXTEEN_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N", "I")
_SIXTEEN_TO_EIGHT = 257

#: What is opened, by Pillow's names ("JPEG" with several pictures is its MPO). Others start programs, as EPS does.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")


OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def open_image(file: IO[bytes]) -> Image.Image:
    """The image in an open file, not yet decoded; only `FORMATS` are tried, whatever the file is called."""
    return Image.open(file, formats=FORMATS)


def open_regular(path: str) -> IO[bytes]:
    """Open a file for reading; a named pipe or a device, which could keep a reader waiting for ever, is refused.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is no regular file")
    return open(path, "rb")


def read_image(path: str) -> Image.Image:
    """8-bit RGB image of a file, rotated by its EXIF orientation as in fast-reid.

    Palette images give their colours (fast-reid: their indices); transparency is dropped, the colour below it stays;
    CMYK and 1-bit are converted; 16-bit grey is scaled to 8 bit (Pillow alone would clip it to
    white).

    Raises:
        DataError: the file is missing, damaged, no regular file, no image of `FORMATS`, or holds 32-bit floats
            (their range is unknown).
        OSError, MemoryError: this process can open no more files or has no more memory; the image may be good.
    """
    try:
        with open_regular(path) as file:
            image = open_image(file)
            image.load()
            return _to_rgb(_upright(image))
    except FileNotFoundError:
        raise DataError(f"image {path!r} does not exist; restore it or take it out of the list") from None
    except MemoryError:
        raise
    except Exception as error:  # Pillow's plug-ins raise nearly every type on damaged files
        if isinstance(error, OSError) and error.errno in OF_THE_PROCESS:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"image {path!r} cannot be read ({reason}); replace it or take it out of the list"
        ) from None


def as_rgb(image: Image.Image) -> Image.Image:
    """A picture in memory as `read_image` gives that of a file; it is not changed itself.

    Raises:
        DataError: it cannot be decoded, or holds 32-bit floats.
    """
    try:
        return _to_rgb(_upright(image.copy()))
    except (OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"a picture in memory cannot be used ({reason}); give another one") from None


def _upright(image: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # a broken EXIF block does not make the pixels unreadable
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode in _SIXTEEN_BIT_MODES:
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) // _SIXTEEN_TO_EIGHT
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("its 32-bit floats have no known range")
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def small_jpeg(
    image: Image.Image,
    longest: int,
    *,
    quality: int,
    resample: Image.Resampling = Image.Resampling.BICUBIC,
) -> bytes:
    """A JPEG of at most ``longest`` pixels wide and high, without any of the file's other contents."""
    image = image.copy()
    image.thumbnail((longest, longest), resample)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def data_uri(kind: str, content: bytes) -> str:
    """``content`` as an address that stands in a page itself; ``kind``: its MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
