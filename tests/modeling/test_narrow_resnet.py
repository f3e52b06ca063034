"""The narrow ResNet: fast-reid's own ResNet with half the channels, and what a config can ask of it."""

from __future__ import annotations

import pytest
import torch
from fastreid.config import get_cfg
from fastreid.layers import IBN
from fastreid.modeling.backbones.resnet import BasicBlock, ResNet
from fastreid.modeling.backbones.shufflenet import ShuffleNetV2
from torch import nn

from dnreid_plugins.modeling.backbone import build_backbone
from dnreid_plugins.modeling.dual_stream import DualStream
from dnreid_plugins.modeling.narrow_resnet import BLOCKS, WIDTH


def built(depth: str = "10x", *, seed: int = 0, **options: object) -> nn.Module:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME, cfg.MODEL.BACKBONE.DEPTH = "build_narrow_resnet_backbone", depth
    cfg.MODEL.BACKBONE.PRETRAIN = False
    for name, value in options.items():
        cfg.MODEL.BACKBONE[name] = value
    torch.manual_seed(seed)
    return build_backbone(cfg)


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize("last_stride", [1, 2])
def test_its_stages_are_those_of_fastreids_resnet(depth: str, last_stride: int) -> None:
    narrow = built(depth, LAST_STRIDE=last_stride).eval()
    wide = ResNet(last_stride, "BN", False, False, False, BasicBlock, BLOCKS[depth], [0, 0, 0, 0])
    for number, stage in enumerate(narrow.features, start=1):
        twin = getattr(wide, f"layer{number}")
        shapes = [{k: v.shape for k, v in one.state_dict().items() if v.ndim} for one in (stage, twin)]
        assert shapes[0].keys() == shapes[1].keys()
        for name, shape in shapes[0].items():
            half = [n // 2 if axis < 2 else n for axis, n in enumerate(shapes[1][name])]
            assert list(shape) == half, name
        strides = [[m.stride for m in one.modules() if isinstance(m, nn.Conv2d)] for one in (stage, twin)]
        assert strides[0] == strides[1]
    total = 16 * last_stride
    assert narrow(torch.zeros(2, 3, 64, 128)).shape == (2, 8 * WIDTH, 64 // total, 128 // total)


def test_instance_batch_norm_stands_in_all_stages_but_the_last() -> None:
    with_ibn = [any(isinstance(m, IBN) for m in stage.modules()) for stage in built(WITH_IBN=True).features]
    assert with_ibn == [True, True, True, False]
    assert not any(isinstance(m, IBN) for m in built().modules())


def test_every_weight_gets_gradient_and_the_seed_decides() -> None:
    model = built()
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    first, again, other = (built(seed=seed).state_dict()["first_conv.0.weight"] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_config_that_copies_the_stem_of_a_shufflenet_serves_it() -> None:
    encoder = DualStream(built(), ("first_conv",))
    names = [name for name, _ in encoder.named_parameters() if ".day." in name]
    assert names and all("first_conv" in name for name in names)


def test_stages_have_the_names_of_a_shufflenets_blocks_of_the_same_stride() -> None:
    images, narrow, other = torch.zeros(1, 3, 64, 128), built().eval(), ShuffleNetV2("BN", "0.5x").eval()
    sizes: dict[str, list[torch.Size]] = {
        name: [] for name in ("first_conv", "maxpool", "features.3", "features.11")
    }
    for model in (narrow, other):
        for name, seen in sizes.items():
            model.get_submodule(name).register_forward_hook(lambda *a, seen=seen: seen.append(a[2].shape[2:]))
        model(images)
    assert all(len(seen) == 2 and seen[0] == seen[1] for seen in sizes.values())
    assert narrow.features[-1] is narrow.get_submodule("features.15")


def test_an_unknown_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="DEPTH is '50x', which build_narrow_resnet_backbone does not have"):
        built("50x")
