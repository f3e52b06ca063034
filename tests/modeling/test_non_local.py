"""Non-local blocks: fast-reid's single channel or a share of the block's, the identity at the start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.layers import Non_local
from fastreid.modeling.meta_arch import build_model
from run_helpers import cut_and_resumed, same, train, weights
from torch import Tensor, nn

from dnreid_plugins.engine.preflight import check
from dnreid_plugins.modeling.backbone import build_backbone
from dnreid_plugins.modeling.blocks import NonLocal, build_blocks
from dnreid_plugins.modeling.dual_stream import DualStream
from dnreid_plugins.runtime.config_files import ConfigError, merge_with_suggestions

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "projects" / "AGW" / "configs" / "dn348.yml"


def shipped(width: float) -> CfgNode:
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(SHIPPED), ["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NL_WIDTH", str(width)])
    cfg.MODEL.BACKBONE.PRETRAIN = False
    return cfg


def blocks(model: nn.Module) -> list[Non_local]:
    return [module for module in model.modules() if isinstance(module, Non_local)]


@pytest.mark.parametrize(("width", "inside"), [(0.0, [1, 1]), (0.5, [256, 512]), (0.0005, [1, 1])])
def test_width_and_identity_at_the_start(width: float, inside: list[int]) -> None:
    torch.manual_seed(0)
    model = build_backbone(shipped(width)).eval()
    assert [len(model.NL_2), len(model.NL_3)] == [2, 3] and len(blocks(model)) == 5
    for block, channels in zip((model.NL_2[0], model.NL_3[0]), inside):
        outside = block.in_channels
        assert (
            block.g.weight.shape
            == block.theta.weight.shape
            == block.phi.weight.shape
            == (channels, outside, 1, 1)
        )
        assert block.W[0].weight.shape == (outside, channels, 1, 1) and not block.W[1].weight.any()
        image = torch.randn(2, outside, 3, 2)
        assert torch.equal(block(image), image)


def slow_block(block: Non_local, image: Tensor) -> Tensor:
    """Every place plus the mean over all places of their content, weighted by the product of two projections."""

    def projected(layer: nn.Conv2d) -> Tensor:
        return torch.einsum("ij,jp->ip", layer.weight[..., 0, 0], image.flatten(1)) + layer.bias[:, None]

    content, query, key = (projected(layer) for layer in (block.g, block.theta, block.phi))
    places = image.flatten(1).shape[1]
    gathered = [
        sum((query[:, p] @ key[:, q]) * content[:, q] for q in range(places)) / places for p in range(places)
    ]
    stacked = torch.stack(gathered, dim=1).view(1, -1, *image.shape[1:])
    return block.W(stacked)[0] + image


def test_a_wide_block_is_the_formula() -> None:
    torch.manual_seed(0)
    block = build_backbone(shipped(0.25)).eval().NL_2[0]
    nn.init.ones_(block.W[1].weight)
    image = 0.1 * torch.randn(512, 2, 3)
    with torch.no_grad():
        torch.testing.assert_close(block(image[None])[0], slow_block(block, image), rtol=1e-4, atol=1e-5)


def test_wide_blocks_train_in_a_dual_stream() -> None:
    torch.manual_seed(0)
    model = DualStream(build_backbone(shipped(0.5)), ("conv1", "bn1")).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = [block.g.weight.detach().clone() for block in blocks(model)]
    # The scale of 0 moves in the first step, what lies before it from the second one on.
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])).square().mean().backward()
        optimizer.step()
    assert [not torch.equal(block.g.weight, old) for block, old in zip(blocks(model), before)] == [True] * 5


def test_the_block_does_behind_any_layer_what_fast_reids_resnet_does_with_its_own() -> None:
    torch.manual_seed(0)
    cfg = shipped(0.25)
    own = build_backbone(cfg).eval()
    cfg.MODEL.BACKBONE.WITH_NL, cfg.MODEL.BACKBONE.NL_WIDTH = False, 0.0
    cfg.MODEL.BLOCKS.NAME, cfg.MODEL.BLOCKS.NONLOCAL.WIDTH = ("NonLocal",), 0.25
    places = cfg.MODEL.BLOCKS.NONLOCAL.AFTER = ("layer2.2", "layer2.3", "layer3.3", "layer3.4", "layer3.5")
    plain = build_backbone(cfg).eval()
    plain.load_state_dict({k: v for k, v in own.state_dict().items() if not k.startswith("NL_")})
    added = build_blocks(cfg, plain)
    assert tuple(place for place, _ in added) == places
    for theirs, (_, ours) in zip(blocks(own), added, strict=True):
        nn.init.normal_(theirs.W[1].weight)
        ours.eval().block.load_state_dict(theirs.state_dict())
    stacked = DualStream(plain, (), blocks=added).eval()
    images, domains = torch.randn(2, 3, 64, 48), torch.tensor([0, 1])
    with torch.no_grad():
        assert torch.equal(stacked(images, domains), own(images))
    cfg.MODEL.BACKBONE.NORM = "GN"
    assert isinstance(build_blocks(cfg, plain)[0][1].block.W[1], nn.GroupNorm)


def test_the_shipped_config_puts_the_blocks_behind_two_stages_of_both_its_networks() -> None:
    for protocol in ("base", "protocol2"):
        cfg = get_cfg()
        merge_with_suggestions(cfg, str(ROOT / "configs" / "DNMini" / f"{protocol}.yml"), [])
        network = cfg.MODEL.BACKBONE
        merge_with_suggestions(cfg, str(ROOT / "projects" / "AGW" / "configs" / "base-dnmini.yml"), [])
        cfg.MODEL.BACKBONE = network
        model = build_model(cfg)
        found = [name for name, module in model.named_modules() if isinstance(module, NonLocal)]
        assert found == [f"backbone.backbone.features.{stage}.1" for stage in (3, 11)]
        assert all(block.g.weight.shape[0] == 1 and block.in_channels >= 48 for block in blocks(model))


@pytest.mark.slow
def test_a_run_with_blocks_of_the_config_trains_them_and_resumes(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.BLOCKS.NAME, tiny_cfg.MODEL.BLOCKS.NONLOCAL.AFTER = ("NonLocal",), ("bn1",)
    tiny_cfg.DATASETS.TESTS = ()
    tiny_cfg.DATALOADER.ITERS_PER_EPOCH, tiny_cfg.SOLVER.BASE_LR = 2, 1e-3
    whole = weights(train(tiny_cfg))
    assert whole["backbone.backbone.bn1.1.block.W.1.weight"].any()
    tiny_cfg.OUTPUT_DIR += "-cut"
    assert same(weights(cut_and_resumed(tiny_cfg, 3)), whole)


@pytest.mark.slow
def test_a_run_with_wide_blocks_resumes(tiny_cfg: CfgNode) -> None:
    network = shipped(0.5).MODEL.BACKBONE
    tiny_cfg.MODEL.BACKBONE = network
    tiny_cfg.DATASETS.TESTS = ()
    tiny_cfg.DATALOADER.ITERS_PER_EPOCH, tiny_cfg.SOLVER.BASE_LR = 2, 1e-3
    whole = weights(train(tiny_cfg))
    assert whole["backbone.backbone.NL_2.0.g.weight"].shape == (256, 512, 1, 1)
    tiny_cfg.OUTPUT_DIR += "-cut"
    assert same(weights(cut_and_resumed(tiny_cfg, 3)), whole)


def test_a_width_without_blocks_is_refused() -> None:
    cfg = shipped(0.5)
    cfg.MODEL.BACKBONE.WITH_NL = False
    with pytest.raises(
        ConfigError, match=r"NL_WIDTH is 0\.5, but WITH_NL is False, so there are no non-local blocks"
    ):
        check(cfg)
    cfg.MODEL.BACKBONE.WITH_NL, cfg.MODEL.BACKBONE.NL_WIDTH = True, 1.5
    with pytest.raises(ConfigError, match=r"MODEL\.BACKBONE\.NL_WIDTH is 1\.5; it must be from 0 to 1"):
        check(cfg)
