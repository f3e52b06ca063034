"""fast-reid's transforms, patched and extended, one pipeline per domain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torchvision.transforms as T
from fastreid.config import CfgNode
from fastreid.data.transforms import build_transforms as fastreid_build_transforms
from fastreid.data.transforms.transforms import AugMix, ToTensor
from PIL import Image
from torch import Tensor

from ..functional.types import Domain
from .augment import (
    ChannelAugmentation,
    ChannelExchange,
    ChannelOrGrey,
    ErasedBytes,
    Grey,
    GreyOrColour,
    NoiseErasing,
    SmallPoolPatch,
    ToBytes,
    ToPixels,
)
from .cache.split import Split

ImageTransform = Callable[[Image.Image], Tensor]


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

    def splits(self) -> dict[tuple[Domain, int], Split]:
        """The pipelines, by domain and view, that a kept image can go through; see `Split`."""
        found = {(domain, n): Split.of(one) for domain in Domain for n, one in enumerate(self.of(domain))}
        return {place: split for place, split in found.items() if split is not None}

    def begin_batch(self) -> None:
        """Reset state left by earlier batches, so that a batch depends on its own seeds alone."""
        for pipeline in {id(p): p for domain in Domain for p in self.of(domain)}.values():
            for step in getattr(pipeline, "transforms", ()):
                if isinstance(step, SmallPoolPatch):
                    step.reset()


def build_domain_transform(cfg: CfgNode, *, is_train: bool) -> DomainTransform:
    """Pipelines of ``cfg.INPUT``: RGB image -> ``(3, H, W)`` in 0..255. Test pipelines are deterministic.

    The result is uint8 unless steps on floats are the last ones; then it is float32. Random erasing by a constant is
    none of them: with it the result is a pair, see `ErasedBytes`.

    Raises:
        ValueError: ``INPUT.REA.MODE`` or ``INPUT.VIEWS`` is unknown.
    """
    shared = build_transforms(cfg, is_train=is_train)
    shared = _as_bytes(shared)
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


def _as_bytes(pipeline: Any) -> Any:
    *steps, last = pipeline.transforms
    if isinstance(last, ToPixels):
        return T.Compose([*steps, ToBytes()])
    if type(last) is T.RandomErasing and not isinstance(last.value, str) and isinstance(steps[-1], ToPixels):
        return T.Compose([*steps[:-1], ErasedBytes(last)])
    return pipeline


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
