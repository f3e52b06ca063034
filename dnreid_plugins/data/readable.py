"""Find all training images that cannot be read before training starts."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from .errors import DataError
from .images import open_image, open_regular, read_image
from .items import DomainItem

logger = logging.getLogger(__name__)

#: Seconds until the first progress line and between two lines.
EVERY = 5.0
THREADS = 16
_CHUNK = 256
#: Bytes near the end of a complete file, by Pillow's name of the format.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 1024


def readable_items(items: Sequence[DomainItem], *, name: str, skip_bad: bool) -> list[DomainItem]:
    """The ``items`` whose image can be read, in the same order; nothing is cached between calls.

    A JPEG or PNG is accepted by its header and its end, about 0.1 ms each; all others are decoded. So damage in the
    middle of a file is found only when the image is used.

    Args:
        items: training images.
        name: data set, for the messages.
        skip_bad: leave bad images out, with one warning that lists them all.

    Raises:
        DataError: there are bad images and ``skip_bad`` is False; the log lists every one.
    """
    problems = unreadable([item.path for item in items], name)
    if not problems:
        return list(items)
    listing = "\n".join(problems.values())
    if skip_bad:
        logger.warning(
            "%s: %d of %d images are left out (DATASETS.SKIP_BAD):\n%s",
            name,
            len(problems),
            len(items),
            listing,
        )
        return [item for item in items if item.path not in problems]
    logger.error("%s: images that cannot be used:\n%s", name, listing)
    first = ", ".join(repr(path) for path in list(problems)[:5])
    raise DataError(
        f"{name}: {len(problems)} of {len(items)} images cannot be used, all are listed above and in log.txt, the "
        f"first: {first}; replace them or set DATASETS.SKIP_BAD True to train without them"
    )


def problem_of(path: str) -> str | None:
    """What is wrong with an image file, as a sentence, or None."""
    if _looks_whole(path):
        return None
    try:
        read_image(path)
    except DataError as error:
        return str(error)
    return None


def unreadable(paths: Sequence[str], name: str) -> dict[str, str]:
    """What is wrong with each image file that cannot be read, by path; see `readable_items`."""
    found: dict[str, str] = {}
    last = time.monotonic()
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(THREADS) as pool:
        for number, sentences in enumerate(pool.map(lambda chunk: [*map(problem_of, chunk)], chunks)):
            found |= {path: text for path, text in zip(chunks[number], sentences) if text is not None}
            if time.monotonic() - last > EVERY:
                last = time.monotonic()
                logger.info("%s: %d of %d images checked", name, (number + 1) * _CHUNK, len(paths))
    return found


def _looks_whole(path: str) -> bool:
    """Check header and end of a common format; False only means that a closer check is needed."""
    try:
        with open_regular(path) as file:
            kind = open_image(file).format or ""
            file.seek(max(os.fstat(file.fileno()).st_size - _TAIL, 0))
            return kind in _ENDS and _ENDS[kind] in file.read()
    except Exception:  # Pillow's plug-ins raise nearly every type on damaged files
        return False
