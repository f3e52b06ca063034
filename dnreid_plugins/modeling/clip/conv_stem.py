"""A convolutional patch projection, for transformers that are too small to learn edges from raw patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


class ConvStem(nn.Module):
    """Stride-2 convolutions instead of the one large patch convolution; the grid of patches is the same.

    Group norm between them, so that nothing depends on the batch and a frozen stem really does not change. Four stages
    correspond to patch size 16. Early convolutions are known to make small vision transformers easier to train.

    Args:
        hidden: channels of every stage but the last.
        width: channels of the last, the transformer's width.
        patch_size: height and width in pixels; a power of two, ``2 ** (len(hidden) + 1)``.

    Raises:
        ValueError: the stages do not match the patch size.
    """

    def __init__(self, *, hidden: Sequence[int], width: int, patch_size: tuple[int, int]) -> None:
        super().__init__()
        stages = len(hidden) + 1
        if tuple(patch_size) != (2**stages, 2**stages):
            raise ValueError(f"{stages} stages make patches of {2**stages} pixels, not {tuple(patch_size)}.")
        layers: list[nn.Module] = []
        channels = 3
        for out in hidden:
            layers += [nn.Conv2d(channels, out, 3, 2, 1, bias=False), nn.GroupNorm(out // 8, out), nn.GELU()]
            channels = out
        layers.append(nn.Conv2d(channels, width, 3, 2, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, width, H / patch, W / patch)``."""
        return self.layers(images)


def put_conv_stem(visual: Any, hidden: Sequence[int]) -> None:
    """Replace the patch convolution of an open_clip ``VisionTransformer``."""
    visual.conv1 = ConvStem(hidden=hidden, width=visual.conv1.out_channels, patch_size=visual.patch_size)
