"""Images as the page takes and gives them: an upload that may be anything, and small JPEG copies of files."""

from __future__ import annotations

import functools
import io
import warnings

from PIL import Image, ImageDraw

from ...data.errors import DataError
from ...data.images import as_rgb, open_image, read_image, small_jpeg

MEGABYTE = 1 << 20
MOST_BYTES = 20 * MEGABYTE
#: A small file can be a very large image.
MOST_PIXELS = 50_000_000
#: Longest side of the copies.
SIDES = {"small": 200, "large": 800}


def uploaded_image(content: bytes) -> Image.Image:
    """8-bit RGB image of the bytes of a file, the first one where it has several.

    Raises:
        ValueError: it is empty, no image, damaged, or too large.
    """
    if not content:
        raise ValueError("There is no image in the form; choose or drop a file.")
    try:
        with warnings.catch_warnings(), open_image(io.BytesIO(content)) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if image.width * image.height > MOST_PIXELS:
                raise ValueError(_too_large(image))
            image.load()
            return as_rgb(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(_too_large(None)) from None
    except (DataError, OSError, SyntaxError) as error:
        raise ValueError(
            f"This file cannot be used as an image ({_reason(error)}); choose a JPEG, PNG, WebP or the like."
        ) from None


def _too_large(image: Image.Image | None) -> str:
    size = f"has {image.width} x {image.height} pixels" if image is not None else "has far too many pixels"
    return f"This image {size}; at most {MOST_PIXELS // 10**6} million are taken. Cut out the vehicle."


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return (
        "it is no image of a known kind" if "cannot identify" in text else text[:120] or type(error).__name__
    )


def jpeg(image: Image.Image, side: int) -> bytes:
    """A copy as the page shows it."""
    return small_jpeg(image, side, quality=85)


@functools.lru_cache(maxsize=4096)
def file_copy(path: str, side: int) -> bytes:
    """A copy of an image file; where it cannot be read, a picture that says so."""
    try:
        return jpeg(read_image(path), side)
    except (OSError, ValueError, MemoryError):
        return placeholder()


@functools.cache
def placeholder() -> bytes:
    """A grey picture with a cross."""
    image = Image.new("RGB", (128, 128), (226, 228, 232))
    pen = ImageDraw.Draw(image)
    for line in ((40, 40, 88, 88), (40, 88, 88, 40)):
        pen.line(line, fill=(150, 154, 162), width=5)
    return jpeg(image, 128)
