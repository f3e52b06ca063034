"""The part of a pipeline that follows its resize, run on the pixels of a kept image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torchvision.transforms as T
from numpy.typing import NDArray
from PIL import Image

from ..augment import ErasedBytes, PlaneStep, ToBytes, ToPixels

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Cut:
    """torchvision's ``Pad`` and ``RandomCrop``, and its ``RandomHorizontalFlip``, on ``(H, W, 3)`` pixels.

    The same draws and the same pixels without an image in between: one copy.
    """

    pad: T.Pad | None
    crop: T.RandomCrop | None
    flip: T.RandomHorizontalFlip | None

    @classmethod
    def beginning(cls, steps: list[Any]) -> tuple[Cut, list[Any]]:
        """The cut that ``steps`` begin with, which may be none, and the others."""
        pad, crop, flip, rest = None, None, None, list(steps)
        if len(rest) > 1 and type(rest[0]) is T.Pad and type(rest[1]) is T.RandomCrop:
            whole = isinstance(rest[0].padding, int) and (rest[0].padding_mode, rest[0].fill) == (
                "constant",
                0,
            )
            if whole and rest[1].padding is None and not rest[1].pad_if_needed:
                pad, crop, *rest = rest
        if rest and type(rest[0]) is T.RandomHorizontalFlip:
            flip, *rest = rest
        return cls(pad, crop, flip), rest

    def __call__(self, pixels: Pixels) -> Pixels:
        if self.pad is not None and self.crop is not None:
            pixels = self._cropped(pixels, self.pad.padding)
        if self.flip is not None and torch.rand(1) < self.flip.p:
            pixels = pixels[:, ::-1]
        return pixels

    def _cropped(self, pixels: Pixels, pad: int) -> Pixels:
        height, width = pixels.shape[:2]
        padded = torch.empty(1, height + 2 * pad, width + 2 * pad, device="meta")
        top, left, high, wide = T.RandomCrop.get_params(padded, self.crop.size)  # type: ignore[union-attr]
        top, left = top - pad, left - pad
        result = np.zeros((high, wide, pixels.shape[2]), dtype=np.uint8)
        rows, columns = slice(max(top, 0), max(top + high, 0)), slice(max(left, 0), max(left + wide, 0))
        part = pixels[rows, columns]
        place = (rows.start - top, columns.start - left)
        result[place[0] : place[0] + part.shape[0], place[1] : place[1] + part.shape[1]] = part
        return result


@dataclass(frozen=True)
class Split:
    """A pipeline that resizes every image to one size, with nothing but `PlaneStep` before; these follow it here.

    Attributes:
        resize: a function of the image alone.
        planes, cut, rest: what is done with the resized image.
    """

    resize: T.Resize
    planes: tuple[PlaneStep, ...]
    cut: Cut
    rest: tuple[Callable[[Any], Any], ...]

    @classmethod
    def of(cls, pipeline: Any) -> Split | None:
        """A pipeline taken apart behind its resize; None if it begins otherwise."""
        steps = list(getattr(pipeline, "transforms", ()))
        place = next(
            (place for place, step in enumerate(steps) if not isinstance(step, PlaneStep)), len(steps)
        )
        resize = steps[place] if place < len(steps) - 1 else None
        if not isinstance(resize, T.Resize) or isinstance(resize.size, int) or len(resize.size) != 2:
            return None
        cut, rest = Cut.beginning(steps[place + 1 :])
        return cls(resize, tuple(steps[:place]), cut, tuple(rest))

    def __call__(self, pixels: Pixels) -> Any:
        """The pipeline's end for a resized image ``(H, W, 3)``, or ``(H, W, 4)`` with its grey value behind."""
        result: Any = self.cut(self._planes(pixels) if self.planes else pixels[..., :3])
        if not isinstance(self.rest[0], (ToBytes, ToPixels, ErasedBytes)):
            result = Image.fromarray(np.ascontiguousarray(result))
        for step in self.rest:
            result = step(result)
        return result

    def _planes(self, pixels: Pixels) -> Pixels:
        height, width, planes = pixels.shape
        mode = "RGB" if planes == 3 else "RGBX"
        picture = Image.frombuffer(mode, (width, height), np.ascontiguousarray(pixels), "raw", mode, 0, 1)
        for step in self.planes:
            picture = step(picture)
        return np.asarray(picture)[..., :3]
