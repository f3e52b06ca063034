"""The layout ``cam<number>/<identity>/<image>`` with a file of identities, which SYSU-MM01 and LLCM share."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import DataError
from . import files

logger = logging.getLogger(__name__)


def read_identities(name: str, path: Path) -> list[int]:
    """The identities of a file with one line such as ``6,10,17``; each once, in the order of the file.

    Raises:
        DataError: there is no such file, or something else in it.
    """
    lines = files.read_lines(files.find_list(name, "identities", (path.parent,), (path.name,)))
    words = " ".join(word for _, fields in lines for word in fields).replace(",", " ").split()
    if not words:
        raise DataError(
            f"{name}: {str(path)!r} names no identity; it must be one line of numbers, such as 6,10,17"
        )
    return list(dict.fromkeys(files.parse_identity(path, 1, word) for word in words))


def camera_images(
    name: str, folder: Path, cameras: Sequence[int], ids: Iterable[int]
) -> list[tuple[str, int, int]]:
    """``(path, identity, camera)`` of the images ``folder/cam<camera>/<identity as four digits>/*``.

    Only image files count, hidden ones not: a stray file would shift every draw of a gallery. An identity need not be
    under every camera; those that are under none are named in a warning. Camera and identity come from the folders
    here, not from places in the path: any root and any file name will do.

    Raises:
        DataError: a camera's folder is missing, or a folder may not be read.
    """
    missing = [f"cam{camera}" for camera in cameras if not (folder / f"cam{camera}").is_dir()]
    if missing:
        raise DataError(
            f"{name}: {str(folder)!r} has no folder {', '.join(missing)}; the layout is "
            f"cam<number>/<identity>/<image>, such as cam{cameras[0]}/0001/0001.jpg"
        )
    found: list[tuple[str, int, int]] = []
    empty = []
    for identity in ids:
        before = len(found)
        for camera in cameras:
            own = folder / f"cam{camera}" / f"{identity:04d}"
            if own.is_dir():
                found += [(path, identity, camera) for path in files.list_images(own)]
        if len(found) == before:
            empty.append(identity)
    if empty:
        text = "%s: %d identities have no image below %s, the first is %04d"
        logger.warning(text, name, len(empty), folder, empty[0])
    return found
