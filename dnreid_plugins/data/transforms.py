"""fast-reid's transforms, patched and extended, one pipeline per domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torchvision.transforms as T
from fastreid.config import CfgNode
from fastreid.data.transforms import build_transforms as fastreid_build_transforms
from fastreid.data.transforms.transforms import AugMix, ToTensor
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..functional.types import Domain
from .augment import (
    ChannelAugmentation,
    ChannelExchange,
    ChannelOrGrey,
    Grey,
    GreyOrColour,
    NoiseErasing,
    PlaneStep,
    SmallPoolPatch,
    ToBytes,
    ToPixels,
)

ImageTransform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Split:
    """A pipeline that resizes every image to one size, with nothing but `PlaneStep` before; these follow it here.

    Attributes:
        resize: a function of the image alone.
        planes, rest: what is done with the resized image.
    """

    resize: T.Resize
    planes: tuple[PlaneStep, ...]
    rest: tuple[Callable[[Any], Any], ...]

    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The pipeline's end for a resized image ``(H, W, 3)``, or ``(H, W, 4)`` with its grey value behind."""
        if not self.planes and isinstance(self.rest[0], ToBytes):
            return self.rest[0](pixels[..., :3])
        height, width, planes = pixels.shape
        mode = "RGB" if planes == 3 else "RGBX"
        picture = Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)
        for step in self.planes:
            picture = step(picture)
        result: Any = picture.convert("RGB") if picture.mode == "RGBX" else picture
        for last in self.rest:
            result = last(result)
        return result


def _split(pipeline: Any) -> Split | None:
    steps = list(getattr(pipeline, "transforms", ()))
    place = next((place for place, step in enumerate(steps) if not isinstance(step, PlaneStep)), len(steps))
    resize = steps[place] if place < len(steps) - 1 else None
    if not isinstance(resize, T.Resize) or isinstance(resize.size, int) or len(resize.size) != 2:
        return None
    return Split(resize, tuple(steps[:place]), tuple(steps[place + 1 :]))


#: The steps allowed in a view of ``INPUT.VIEWS``: applied to the cropped image before all other augmentation.
VIEW_STEPS: dict[str, Callable[[], Any]] = {
    "exchange": ChannelExchange,
    "grey": Grey,
    "grey_or_colour": GreyOrColour,
    "channel_or_grey": ChannelOrGrey,
    "grey_or_channel": lambda: ChannelAugmentation(0.5),
}


@dataclass(frozen=True)
class DomainTransform:
    """The pipelines of the two domains, one per view of an image; a call applies one of them.

    Args:
        day, night: pipelines of view 0, the plain one.
        more_day, more_night: those of view 1, 2 ...
    """

    day: ImageTransform
    night: ImageTransform
    more_day: tuple[ImageTransform, ...] = ()
    more_night: tuple[ImageTransform, ...] = ()

    def of(self, domain: Domain) -> tuple[ImageTransform, ...]:
        """All views of a domain."""
        return (self.day, *self.more_day) if domain == Domain.DAY else (self.night, *self.more_night)

    def __call__(self, image: Image.Image, domain: Domain, view: int = 0) -> Tensor:
        return self.of(domain)[view](image)

    def split(self, domain: Domain, view: int = 0) -> Split | None:
        """A pipeline taken apart behind its resize; None if it begins otherwise, see `Split`."""
        return _split(self.of(domain)[view])

    def splits(self) -> list[Split | None]:
        """`split` of every pipeline."""
        return [_split(pipeline) for domain in Domain for pipeline in self.of(domain)]

    def begin_batch(self) -> None:
        """Reset state left by earlier batches, so that a batch depends on its own seeds alone."""
        for pipeline in {id(p): p for domain in Domain for p in self.of(domain)}.values():
            for step in getattr(pipeline, "transforms", ()):
                if isinstance(step, SmallPoolPatch):
                    step.reset()


def build_domain_transform(cfg: CfgNode, *, is_train: bool) -> DomainTransform:
    """Pipelines of ``cfg.INPUT``: RGB image -> ``(3, H, W)`` in 0..255. Test pipelines are deterministic.

    The result is uint8 unless a step on floats is the last one, as random erasing is; then it is float32.

    Raises:
        ValueError: ``INPUT.REA.MODE`` or ``INPUT.VIEWS`` is unknown.
    """
    shared = build_transforms(cfg, is_train=is_train)
    if isinstance(shared.transforms[-1], ToPixels):
        shared = T.Compose([*shared.transforms[:-1], ToBytes()])
    if not is_train:
        return DomainTransform(day=shared, night=shared)
    before = [ChannelAugmentation(cfg.INPUT.CHANNEL_AUG.PROB)] if cfg.INPUT.CHANNEL_AUG.ENABLED else []
    day, *more_day = (_with_steps(shared, [*before, *steps]) for steps in view_steps(cfg, Domain.DAY))
    night, *more_night = (_with_steps(shared, steps) for steps in view_steps(cfg, Domain.NIGHT))
    return DomainTransform(day, night, tuple(more_day), tuple(more_night))


def view_steps(cfg: CfgNode, domain: Domain) -> list[list[Any]]:
    """The steps that ``INPUT.VIEWS`` adds before the shared pipeline, per view of a domain.

    Raises:
        ValueError: no view, or a step that is not in `VIEW_STEPS`.
    """
    views = cfg.INPUT.VIEWS[domain.name]
    names = [name for view in views if isinstance(view, (list, tuple)) for name in view]
    wrong = [name for name in names if name not in VIEW_STEPS]
    if wrong or not views or not all(isinstance(view, (list, tuple)) for view in views):
        raise ValueError(
            f"INPUT.VIEWS.{domain.name} is {views!r}; it lists the views of an image, each a list of steps, e.g. "
            f"((), ('exchange',)); steps are {', '.join(VIEW_STEPS)}, a view without any is the plain one."
        )
    return [[VIEW_STEPS[name]() for name in view] for view in views]


def _with_steps(shared: Any, steps: list[Any]) -> Any:
    return T.Compose([*steps, *shared.transforms]) if steps else shared


def build_transforms(cfg: CfgNode, is_train: bool = True) -> Any:
    """fast-reid's pipeline, with our ``INPUT.AFFINE``, ``INPUT.RPT`` and ``INPUT.REA.MODE`` in place."""
    plain = cfg.clone()
    plain.defrost()
    plain.INPUT.AFFINE.ENABLED = False  # fast-reid's uses arguments that torchvision has removed
    plain.INPUT.RPT.ENABLED = False  # fast-reid's pool is huge
    if cfg.INPUT.REA.MODE not in ("constant", "noise"):
        raise ValueError(f"INPUT.REA.MODE is {cfg.INPUT.REA.MODE!r}; choose 'constant' or 'noise'")
    noise = cfg.INPUT.REA.ENABLED and cfg.INPUT.REA.MODE == "noise"
    plain.INPUT.REA.ENABLED = cfg.INPUT.REA.ENABLED and not noise
    steps = [
        ToPixels() if isinstance(step, ToTensor) else step
        for step in fastreid_build_transforms(plain, is_train=is_train).transforms
    ]
    if not is_train:
        return T.Compose(steps)
    if cfg.INPUT.AFFINE.ENABLED:
        place = next(i for i, step in enumerate(steps) if isinstance(step, (AugMix, ToPixels)))
        steps.insert(place, T.RandomAffine(degrees=10, scale=(0.9, 1.1), shear=0.1, fill=0))
    if noise:
        steps.append(NoiseErasing(cfg.INPUT.REA.PROB, cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    if cfg.INPUT.RPT.ENABLED:
        steps.append(SmallPoolPatch(cfg.INPUT.RPT.PROB))
    return T.Compose(steps)
