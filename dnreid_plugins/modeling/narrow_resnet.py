"""A ResNet of half the usual channels, for small images on a CPU.

fast-reid's ResNet begins with 64 channels and ends with 512: 11 M weights in its smallest size. This one has the
same blocks at half the width. Its stem and its stages have the names that fast-reid's ShuffleNet gives to the stem and
to the last blocks of the same stride, so that a config that copies or follows one of them serves both.
"""

from __future__ import annotations

from typing import Any

from fastreid.layers import get_norm
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.backbones.resnet import BasicBlock
from torch import Tensor, nn

#: DEPTH -> blocks per stage.
BLOCKS = {"10x": (1, 1, 1, 1), "18x": (2, 2, 2, 2)}
#: Names of the stages in ``features``: ShuffleNet reaches 1/8 of the image behind its block 3, 1/16 behind 11.
STAGES = ("0", "3", "11", "15")
WIDTH = 32


class NarrowResNet(nn.Module):
    """Stem (3 x 3, stride 2) and pooling, then four stages of 32, 64, 128 and 256 channels.

    Args:
        blocks: Basic blocks of each stage.
        norm: fast-reid's name of the normalisation.
        last_stride: Stride of the last stage; 1 gives a feature map of 1/16 of the image, 2 of 1/32.
        with_ibn: Instance-batch norm in the first three stages.
    """

    def __init__(
        self, blocks: tuple[int, ...], *, norm: str = "BN", last_stride: int = 1, with_ibn: bool = False
    ) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, 2, 1, bias=False), get_norm(norm, WIDTH), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.features, before = nn.Sequential(), WIDTH
        for stage, count in enumerate(blocks):
            last = stage == len(blocks) - 1
            stride = 1 if stage == 0 else last_stride if last else 2
            planes = WIDTH * 2**stage
            built = _stage(before, planes, count, stride=stride, norm=norm, with_ibn=with_ibn and not last)
            self.features.add_module(STAGES[stage], built)
            before = planes
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def forward(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` -> ``(B, 256, H / 16, W / 16)``."""
        features: Tensor = self.features(self.maxpool(self.first_conv(images)))
        return features


def _stage(before: int, planes: int, count: int, *, stride: int, norm: str, with_ibn: bool) -> nn.Sequential:
    shortcut = None
    if stride != 1 or before != planes:
        shortcut = nn.Sequential(nn.Conv2d(before, planes, 1, stride, bias=False), get_norm(norm, planes))
    first = BasicBlock(before, planes, norm, with_ibn, stride=stride, downsample=shortcut)
    return nn.Sequential(first, *(BasicBlock(planes, planes, norm, with_ibn) for _ in range(count - 1)))


@BACKBONE_REGISTRY.register()
def build_narrow_resnet_backbone(cfg: Any) -> nn.Module:
    """``DEPTH`` 10x or 18x; ``NORM``, ``LAST_STRIDE`` and ``WITH_IBN`` as for fast-reid's ResNet.

    Its weights are loaded by `modeling.backbone.build_backbone`.
    """
    backbone = cfg.MODEL.BACKBONE
    return NarrowResNet(
        BLOCKS[backbone.DEPTH],
        norm=backbone.NORM,
        last_stride=backbone.LAST_STRIDE,
        with_ibn=backbone.WITH_IBN,
    )
