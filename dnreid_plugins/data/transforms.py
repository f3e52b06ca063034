"""fast-reid's transforms, mended and extended, one pipeline per domain."""

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
from .augment import ChannelAugmentation, NoiseErasing, SmallPoolPatch, ToPixels

ImageTransform = Callable[[Image.Image], Tensor]


def add_input_config(cfg: CfgNode) -> None:
    """Add our keys below ``INPUT``."""
    # Replace day images at random by one of their channels or their grey value.
    cfg.INPUT.CHANNEL_AUG = CfgNode({"ENABLED": False})
    cfg.INPUT.CHANNEL_AUG.PROB = 0.5
    # What random erasing fills in: "constant" (INPUT.REA.VALUE, as fast-reid) or "noise" (normal, per pixel).
    cfg.INPUT.REA.MODE = "constant"


@dataclass(frozen=True)
class DomainTransform:
    """The pipelines of the two domains; calling it picks one."""

    day: ImageTransform
    night: ImageTransform

    def __call__(self, image: Image.Image, domain: Domain) -> Tensor:
        return self.day(image) if domain == Domain.DAY else self.night(image)

    def begin_batch(self) -> None:
        """Forget what earlier batches left behind, so that a batch depends on its own seeds alone."""
        for pipeline in {id(p): p for p in (self.day, self.night)}.values():
            for step in getattr(pipeline, "transforms", ()):
                if isinstance(step, SmallPoolPatch):
                    step.reset()


def build_domain_transform(cfg: CfgNode, *, is_train: bool) -> DomainTransform:
    """Pipelines of ``cfg.INPUT``: RGB image -> ``(3, H, W)`` float32 in 0..255. Test pipelines draw nothing.

    Raises:
        ValueError: ``INPUT.REA.MODE`` is unknown.
    """
    shared = build_transforms(cfg, is_train=is_train)
    if not is_train or not cfg.INPUT.CHANNEL_AUG.ENABLED:
        return DomainTransform(day=shared, night=shared)
    day = T.Compose([ChannelAugmentation(cfg.INPUT.CHANNEL_AUG.PROB), *shared.transforms])
    return DomainTransform(day=day, night=shared)


def build_transforms(cfg: CfgNode, is_train: bool = True) -> Any:
    """fast-reid's pipeline, with our ``INPUT.AFFINE``, ``INPUT.RPT`` and ``INPUT.REA.MODE`` in place."""
    plain = cfg.clone()
    plain.defrost()
    plain.INPUT.AFFINE.ENABLED = False  # fast-reid's uses arguments that torchvision dropped
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
