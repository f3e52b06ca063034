"""fast-reid's non-local block behind any layer of any backbone.

fast-reid's ResNet places such blocks itself (``MODEL.BACKBONE.WITH_NL``); its other backbones have no place for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastreid.layers import Non_local
from torch import Tensor, nn

from ...runtime.sections import Share, construct
from .base import BLOCK_REGISTRY, Block, Place


@BLOCK_REGISTRY.register()
class NonLocal(Block):
    """``x + norm(W (f g(x)))``, where ``f = theta(x) . phi(x) / (h w)`` compares every two places of an image.

    Wang et al., CVPR 2018, as AGW (Ye et al., TPAMI 2021) puts it behind the last blocks of the second and third
    stage. The norm (``MODEL.BACKBONE.NORM``) begins with scale 0, so a new block passes its input on unchanged.

    Args:
        after: Sub-modules behind which it stands; in AGW the last two blocks of the second stage and the last three of
            the third.
        width: Channels inside as a share of those it works on, 0.5 in its paper; 0 = a single one, as in fast-reid.
        norm: fast-reid's name of the normalisation; ``MODEL.BACKBONE.NORM``.
    """

    def __init__(self, *, after: Sequence[str] = (), width: Share = 0.0, norm: str, place: Place) -> None:
        super().__init__(after=after, place=place)
        self.block = Non_local(place.channels, norm)
        widen_non_local(self.block, width)

    @classmethod
    def from_config(cls, cfg: Any, place: Place) -> Block:
        return construct(cls, cfg, norm=cfg.MODEL.BACKBONE.NORM, place=place)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.block(x)
        return mixed


def widen_non_local(block: Non_local, share: float) -> None:
    """Give ``block`` this share of its outer channels inside, with new weights; 0 leaves its single one.

    The norm behind its last convolution keeps its scale of 0.
    """
    if share <= 0:
        return
    outside: int = block.in_channels
    inside = max(round(outside * share), 1)
    block.inter_channels = inside
    for name in ("g", "theta", "phi"):
        setattr(block, name, nn.Conv2d(outside, inside, 1))
    block.W[0] = nn.Conv2d(inside, outside, 1)
