"""DualStream: equal to the plain backbone at the start, domains kept apart, any backbone of the registry."""

from __future__ import annotations

import copy

import pytest
import torch
from fastreid.config import get_cfg
from fastreid.modeling.backbones import BACKBONE_REGISTRY, build_backbone
from torch import nn

from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.dual_stream import DualStream, PerDomain

# builder -> (depth, feature dimension, shallow modules, input height x width)
BACKBONES = {
    "build_resnet_backbone": ("18x", 512, ("conv1", "bn1", "layer1", "layer2"), (32, 32)),
    "build_resnest_backbone": ("50x", 2048, ("conv1", "bn1", "layer1"), (32, 32)),
    "build_resnext_backbone": ("50x", 2048, ("conv1", "bn1", "layer1"), (32, 32)),
    "build_osnet_backbone": ("x0_25", 128, ("conv1", "conv2"), (64, 32)),
    "build_regnet_backbone": ("200x", 368, ("stem", "s1"), (32, 32)),
    "build_effnet_backbone": ("b0", 1280, ("stem", "s1"), (32, 32)),
    "build_shufflenetv2_backbone": ("0.5x", 1024, ("first_conv",), (64, 64)),
    "build_mobilenetv2_backbone": ("0.1x", 1280, ("features.0", "features.1"), (32, 32)),
    "build_mobilenetv3_backbone": ("Small", 1024, ("features.0",), (32, 32)),
    "build_repvgg_backbone": ("A0", 1280, ("stage0", "stage1"), (32, 32)),
    "build_narrow_resnet_backbone": ("10x", 256, ("first_conv", "features.3"), (32, 32)),
    "build_vit_backbone": ("small", 768, ("patch_embed",), (32, 32)),
}
# Registered, but not an image backbone that fast-reid's own builders can make on their own here.
OURS = {"build_clip_vit_backbone", "build_tiny_backbone"}


def make(name: str) -> nn.Module:
    depth, dim, _, size = BACKBONES[name]
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.NAME = name
    cfg.MODEL.BACKBONE.DEPTH = depth
    cfg.MODEL.BACKBONE.FEAT_DIM = dim
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.BACKBONE.STRIDE_SIZE = (16, 16)
    cfg.INPUT.SIZE_TRAIN = list(size)
    torch.manual_seed(0)
    return build_backbone(cfg)


def test_every_registered_backbone_is_tried() -> None:
    assert set(BACKBONE_REGISTRY._obj_map) - OURS == set(BACKBONES)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_identical_copies_equal_the_plain_backbone_and_one_step_trains_both(name: str) -> None:
    _, dim, modules, size = BACKBONES[name]
    plain = make(name)
    dual = DualStream(copy.deepcopy(plain), modules)
    images = torch.randn(6, 3, *size)
    domains = torch.tensor([1, 0, 1, 1, 0, 0])
    plain.eval(), dual.eval()
    with torch.no_grad():
        expected, got = plain(images), dual(images, domains)
    assert got.shape[:2] == (6, dim)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)

    dual.train()
    before = {key: value.clone() for key, value in dual.state_dict().items()}
    optimizer = torch.optim.SGD(dual.parameters(), lr=0.1)
    dual(images, domains).square().mean().backward()
    optimizer.step()
    copies = [m for m in dual.modules() if isinstance(m, PerDomain)]
    assert copies
    for part in copies:
        for own in (part.day, part.night):
            gradients = [p.grad for p in own.parameters()]
            assert all(g is not None for g in gradients)
    assert any(not torch.equal(before[key], value) for key, value in dual.state_dict().items())


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5))


def test_each_domain_goes_through_its_own_copy_only() -> None:
    dual = DualStream(small_net(), ("0", "1")).eval()
    images, domains = torch.randn(5, 3, 8, 8), torch.tensor([0, 1, 0, 0, 1])
    before = dual(images, domains)
    with torch.no_grad():
        dual.backbone[0].night.weight.add_(1.0)
    after = dual(images, domains)
    assert torch.equal(before[domains == 0], after[domains == 0])
    assert not torch.allclose(before[domains == 1], after[domains == 1])


@pytest.mark.parametrize("domains", [[0, 0, 0], [1, 1, 1], [1, 0, 1], [0], [1]])
def test_any_mix_of_domains_matches_one_image_at_a_time(domains: list[int]) -> None:
    dual = DualStream(small_net(), ("0", "1")).eval()
    with torch.no_grad():
        dual.backbone[0].night.weight.mul_(0.5)
    images, which = torch.randn(len(domains), 3, 8, 8), torch.tensor(domains)
    alone = torch.cat([dual(images[i : i + 1], which[i : i + 1]) for i in range(len(domains))])
    torch.testing.assert_close(dual(images, which), alone)


def test_shared_batch_norm_sees_both_domains_and_own_batch_norm_one() -> None:
    dual = DualStream(small_net(), ("0", "1")).train()
    images = torch.cat([torch.randn(4, 3, 8, 8), 5 + torch.randn(4, 3, 8, 8)])
    domains = torch.tensor([0] * 4 + [1] * 4)
    own_day, own_night, shared = dual.backbone[1].day, dual.backbone[1].night, dual.backbone[3]
    inputs: list[torch.Tensor] = []
    shared.register_forward_hook(lambda _module, args, _out: inputs.append(args[0].detach()))
    dual(images, domains)
    torch.testing.assert_close(shared.running_mean, 0.1 * inputs[0].mean(dim=(0, 2, 3)))
    day_mean = dual.backbone[0].day(images[:4]).mean(dim=(0, 2, 3))
    torch.testing.assert_close(own_day.running_mean, 0.1 * day_mean)
    assert not torch.allclose(own_day.running_mean, own_night.running_mean)


def test_frozen_statistics_stay_while_their_scale_trains() -> None:
    dual = DualStream(small_net(), ("0", "1"), freeze_shared_statistics=True)
    dual.train()
    shared = dual.backbone[3]
    mean = shared.running_mean.clone()
    dual(torch.randn(4, 3, 8, 8), torch.tensor([0, 0, 1, 1])).square().sum().backward()
    assert torch.equal(shared.running_mean, mean)
    assert shared.weight.grad is not None and bool(shared.weight.grad.abs().sum() > 0)
    dual.eval(), dual.train()
    assert not shared.training and dual.backbone[1].day.training


@pytest.mark.parametrize("names", [("layer9",), ("",), ("0", "0"), ("0.0",)])
def test_wrong_names_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"MODEL.DUAL_STREAM.MODULES names"):
        DualStream(small_net(), names)


def test_non_local_blocks_are_copied_one_by_one() -> None:
    cfg = get_cfg()
    cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.MODEL.BACKBONE.WITH_NL = True
    plain = build_backbone(cfg)
    for block in plain.NL_2:  # as built, a block gives back its input
        torch.nn.init.ones_(block.W[1].weight)
    dual = DualStream(copy.deepcopy(plain), ("conv1", "bn1", "layer1", "layer2", "NL_2"))
    assert len(plain.NL_2) == 2 and all(isinstance(block, PerDomain) for block in dual.backbone.NL_2)
    images, domains = torch.randn(3, 3, 32, 32), torch.tensor([0, 1, 1])
    plain.eval(), dual.eval()
    with torch.no_grad():
        expected = plain(images)
        torch.testing.assert_close(dual(images, domains), expected, rtol=1e-3, atol=1e-4)
        torch.nn.init.zeros_(dual.backbone.NL_2[0].night.W[1].weight)
        got = dual(images, domains)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(got[1:], expected[1:], rtol=1e-2)


class Stem(nn.Module):
    """What ResNets do: a layer per domain, a shared layer that writes into its input, a layer per domain."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.second = nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.third = nn.Conv2d(4, 4, 1)
        self.fourth = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.second(self.first(x)))
        return self.fourth(self.third(x))


@pytest.mark.parametrize("num_day", [0, 1, 3, 6])
def test_maps_that_stay_in_two_parts_give_the_values_and_gradients_of_two_networks(num_day: int) -> None:
    torch.manual_seed(1)
    plain = Stem()
    dual = DualStream(copy.deepcopy(plain), ("first", "second", "third", "fourth")).train()
    alone = [copy.deepcopy(plain).train() for _ in range(2)]
    images, domains = torch.randn(6, 3, 8, 8), (torch.arange(6) >= num_day).long()
    got = dual(images, domains)
    expected = torch.cat([alone[d](images[domains == d]) for d in (0, 1) if bool((domains == d).any())])
    assert torch.equal(got, expected)
    weight = torch.randn_like(got)
    (got * weight).sum().backward()
    (expected * weight).sum().backward()
    for name, pair in dual.backbone.named_modules():
        for domain in (0, 1) if isinstance(pair, PerDomain) else ():
            twin = dict(alone[domain].get_submodule(name).named_parameters())
            for key, parameter in pair.of(Domain(domain)).named_parameters():
                own, other = parameter.grad, twin[key].grad
                assert (own is None and other is None) or torch.equal(own, other), f"{name}.{key}"


def test_a_hook_that_replaces_a_map_is_heard_by_the_next_layer_of_both_domains() -> None:
    dual = DualStream(Stem(), ("third", "fourth")).eval()
    dual.backbone.third.register_forward_hook(lambda _module, _args, out: out * 0.0)
    images, domains = torch.randn(4, 3, 8, 8), torch.tensor([0, 0, 1, 1])
    with torch.no_grad():
        bias = dual.backbone.fourth.day.bias[None, :, None, None]
        torch.testing.assert_close(dual(images, domains), bias.expand(4, 2, 6, 6))
    with torch.inference_mode():
        torch.testing.assert_close(dual(images, domains), bias.expand(4, 2, 6, 6))
