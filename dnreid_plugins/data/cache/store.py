"""The file of the resized images: its layout, reading and filling it, from several processes at once."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import reduction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...runtime.files import force_to_disk, sync_folder
from ..images import read_image

logger = logging.getLogger(__name__)

PAGE = 4096
Resize = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Layout:
    """What a file holds: header, one mark per image (1 = its pixels are there), pixels.

    Attributes:
        header: names list, size and version of what is in the file; at most `PAGE` bytes.
        shape: ``(N, H, W, planes)``; 3 planes, or 4 with the grey value of the image before its resize.
    """

    header: bytes
    shape: tuple[int, int, int, int]

    @property
    def pixels_at(self) -> int:
        """Byte at which the pixels begin, on a page of their own."""
        return PAGE * (1 + -(-self.shape[0] // PAGE))

    @property
    def image_bytes(self) -> int:
        return int(np.prod(self.shape[1:]))

    @property
    def bytes(self) -> int:
        return self.pixels_at + self.shape[0] * self.image_bytes

    def is_in(self, descriptor: int) -> bool:
        """Whether an open file has this header and size."""
        whole = os.fstat(descriptor).st_size == self.bytes
        return whole and os.pread(descriptor, PAGE, 0) == self.header.ljust(PAGE)


class PixelStore:
    """The resized images of a list, made by whoever reads them first and read by every process that has the file.

    A writer hands the kernel the pixels before the mark, and two writers of one image write the same bytes; so
    nothing is locked, and a killed writer leaves an image that is not marked. Where the file cannot be written to, the
    images that are not in it are read from their own files.

    Args:
        descriptor: an open file of ``layout.bytes`` bytes, without content or with this layout's; it is taken over.
        layout: what the file holds.
        temporary, path: a file on the disk gets its name ``path`` in place of ``temporary`` when it is complete;
            without that it is deleted with this object. None = it has no name, or its final one.
    """

    def __init__(
        self, descriptor: int, layout: Layout, *, temporary: Path | None = None, path: Path | None = None
    ) -> None:
        self.layout, self.place = layout, f"/proc/{os.getpid()}/fd/{descriptor}"
        self._temporary, self._path, self._owner = temporary, path, os.getpid()
        self._complete = self._full = False
        self._map(descriptor)
        self._end = weakref.finalize(self, _close, descriptor, temporary, os.getpid())

    @classmethod
    def new(cls, descriptor: int, layout: Layout, **names: Path) -> PixelStore:
        """An empty store in an empty file."""
        os.ftruncate(descriptor, layout.bytes)
        os.pwrite(descriptor, layout.header.ljust(PAGE), 0)
        return cls(descriptor, layout, **names)

    def _map(self, descriptor: int) -> None:
        self._descriptor = descriptor
        content = mmap.mmap(descriptor, self.layout.bytes, prot=mmap.PROT_READ)
        count = self.layout.shape[0]
        self._marks = np.frombuffer(content, np.uint8, count, PAGE)
        size = count * self.layout.image_bytes
        self._pixels = np.frombuffer(content, np.uint8, size, self.layout.pixels_at).reshape(
            self.layout.shape
        )

    def __getstate__(self) -> dict[str, Any]:
        """For a worker with a fresh interpreter, which is given the open file."""
        return {"layout": self.layout, "place": self.place, "file": reduction.DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["file"].detach(), state["layout"])  # type: ignore[misc]
        self.place = state["place"]

    @property
    def complete(self) -> bool:
        """Whether every image is there."""
        self._complete = self._complete or bool(self._marks.all())
        return self._complete

    def pixels(self, index: int, path: str, resize: Resize) -> NDArray[np.uint8]:
        """``(H, W, planes)`` of the resized image at a place, read-only; of the file ``path`` if it is not there yet.

        Raises:
            DataError: the image cannot be read.
        """
        if self._marks[index]:
            found: NDArray[np.uint8] = self._pixels[index]
            return found
        image = read_image(path)
        made = np.asarray(resize(image))
        if self.layout.shape[3] == 4:
            made = np.dstack([made, np.asarray(resize(image.convert("L")))])
        if not self._full:
            self._keep(index, made)
        return made

    def _keep(self, index: int, pixels: NDArray[np.uint8]) -> None:
        start = self.layout.pixels_at + index * self.layout.image_bytes
        try:
            if os.pwrite(self._descriptor, pixels.tobytes(), start) == pixels.nbytes:
                os.pwrite(self._descriptor, b"\1", PAGE + index)
        except OSError as error:
            self._full = True
            logger.warning(
                "DATALOADER.CACHE: no more images can be kept (%s); the others are read from their files.",
                error.strerror,
            )

    def settle(self) -> None:
        """Give a complete file on the disk its name; it is flushed before. Nothing in other cases."""
        if self._temporary is None or self._path is None or self._owner != os.getpid() or not self.complete:
            return
        temporary, self._temporary = self._temporary, None
        try:
            force_to_disk(temporary)
            os.replace(temporary, self._path)
            sync_folder(self._path.parent)
        except OSError as error:
            logger.warning("DATALOADER.CACHE: %s cannot be written (%s).", self._path, error.strerror)
            return  # the temporary file goes with this object
        logger.info("DATALOADER.CACHE: the resized images are in %s.", self._path)


def _close(descriptor: int, temporary: Path | None, owner: int) -> None:
    """Close a store's file, and delete one that has not got its name; pages stay mapped while arrays show them."""
    if temporary is not None and owner == os.getpid():
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.close(descriptor)
