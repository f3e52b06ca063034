"""CLIP's image tower as a fast-reid backbone, against open_clip itself."""

from __future__ import annotations

import copy
import json
import re
import socket
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from fastreid.config import get_cfg
from safetensors.torch import save_file
from torch import Tensor

import dnreid_plugins  # noqa: F401  (registers)
from dnreid_plugins.modeling import clip_head  # noqa: F401  (registers ClipNeckHead)
from dnreid_plugins.modeling.clip.image_tower import (
    ClipVitBackbone,
    build_clip_vit_backbone,
    resize_position_embedding,
    unit_parts,
)
from dnreid_plugins.modeling.clip.weights import ClipDescription, build_open_clip, describe, find_weights

TOY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 64, "width": 16, "heads": 2, "layers": 2},
}


def toy_clip(**vision: Any) -> Any:
    torch.manual_seed(0)
    description = ClipDescription("toy", {**TOY, "vision_cfg": {**TOY["vision_cfg"], **vision}})
    return build_open_clip(description).eval()


def backbone_of(model: Any, size: tuple[int, int] = (32, 32), **options: Any) -> ClipVitBackbone:
    return ClipVitBackbone(visual=model.visual, input_size=size, **options)


@pytest.fixture
def toy_file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.json"
    path.write_text(json.dumps({"model_cfg": TOY}))
    return path


def toy_cfg(path: Path, **backbone: Any) -> Any:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "Baseline"
    cfg.MODEL.BACKBONE.NAME = "build_clip_vit_backbone"
    cfg.MODEL.BACKBONE.FEAT_DIM = 48
    cfg.MODEL.BACKBONE.CLIP.MODEL = str(path)
    for key, value in backbone.items():
        cfg.MODEL.BACKBONE.CLIP[key] = value
    cfg.INPUT.SIZE_TRAIN = [32, 32]
    return cfg


# ---------------------------------------------------------------- the same numbers as open_clip


@pytest.mark.parametrize("variant", [{}, {"no_ln_pre": True}, {"ls_init_value": 0.1}, {"qk_norm": True}])
def test_equals_encode_image(variant: dict[str, Any]) -> None:
    model = toy_clip(**variant)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = model.encode_image(images)
        features = backbone_of(model)(images)
    assert features.shape == (3, 48, 1, 1)
    torch.testing.assert_close(features[:, 32:, 0, 0], expected, rtol=0, atol=1e-6)


def test_equals_encode_image_in_gradient() -> None:
    model = toy_clip().double()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    model.encode_image(images).square().sum().backward()
    name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
    expected = dict(model.named_parameters())[name].grad.clone()
    model.zero_grad()
    backbone = backbone_of(model)
    backbone(images)[:, 32:].square().sum().backward()
    torch.testing.assert_close(backbone.blocks[1].mlp.c_fc.weight.grad, expected)


def test_class_token_is_the_one_that_is_projected() -> None:
    model = toy_clip()
    backbone = backbone_of(model)
    features = backbone(torch.randn(2, 3, 32, 32))[..., 0, 0]
    torch.testing.assert_close(features[:, :32] @ model.visual.proj, features[:, 32:])
    assert backbone.split == (32, 16)
    assert backbone.feat_dim == 48


# ---------------------------------------------------------------- position embedding


def test_native_grid_gives_the_same_tensor() -> None:
    embedding = torch.randn(17, 8)
    assert resize_position_embedding(embedding, (4, 4), (4, 4)) is embedding


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (64, 32), (24, 40)])
def test_bicubic_is_open_clips_own_resize(size: tuple[int, int]) -> None:
    model = toy_clip()
    embedding = model.visual.positional_embedding.detach().clone()
    other = toy_clip(image_size=size)
    state = {"visual.positional_embedding": embedding.clone()}
    open_clip.model.resize_pos_embed(state, other)
    ours = backbone_of(model, size, pos_resize="bicubic").embed.positional_embedding
    torch.testing.assert_close(ours.detach(), state["visual.positional_embedding"])


def slow_bilinear(grid: Tensor, new: tuple[int, int]) -> Tensor:
    """(h, w, W) -> (h', w', W), pixel by pixel, half-pixel centres, border repeated."""
    h, w, _ = grid.shape
    out = torch.empty(*new, grid.shape[2], dtype=grid.dtype)
    for i in range(new[0]):
        for j in range(new[1]):
            y = min(max((i + 0.5) * h / new[0] - 0.5, 0), h - 1)
            x = min(max((j + 0.5) * w / new[1] - 0.5, 0), w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
            top = grid[y0, x0] * (1 - (x - x0)) + grid[y0, x1] * (x - x0)
            bottom = grid[y1, x0] * (1 - (x - x0)) + grid[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


@pytest.mark.parametrize("new", [(1, 1), (3, 4), (8, 2), (5, 7)])
def test_bilinear_against_pixel_loop(new: tuple[int, int]) -> None:
    embedding = torch.randn(13, 6, dtype=torch.float64)
    resized = resize_position_embedding(embedding, (3, 4), new)
    expected = slow_bilinear(embedding[1:].reshape(3, 4, 6), new).reshape(-1, 6)
    torch.testing.assert_close(resized, torch.cat([embedding[:1], expected]))


def test_unknown_resize_is_refused() -> None:
    with pytest.raises(ValueError, match="POS_RESIZE is 'nearest'"):
        resize_position_embedding(torch.randn(5, 2), (2, 2), (3, 3), "nearest")


def test_another_size_than_the_trained_one() -> None:
    images = torch.randn(2, 3, 48, 24)
    built_for_it = backbone_of(toy_clip(), (48, 24))
    built_for_native = backbone_of(toy_clip(), (32, 32))
    assert built_for_it.embed.grid == (6, 3)
    torch.testing.assert_close(built_for_native(images), built_for_it(images))
    with pytest.raises(ValueError, match="smaller than a patch"):
        backbone_of(toy_clip(), (4, 32))


def test_stride_gives_overlapping_patches() -> None:
    images = torch.randn(2, 3, 32, 32)
    plain, same = backbone_of(toy_clip()), backbone_of(toy_clip(), stride=8)
    torch.testing.assert_close(plain(images), same(images), rtol=0, atol=0)
    dense = backbone_of(toy_clip(), stride=4)
    assert dense.embed.grid == (7, 7)
    assert dense.embed(images).shape == (2, 50, 32)
    assert dense.embed.positional_embedding.shape == (50, 32)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize("freeze", [True, False])
def test_frozen_patch_projection(freeze: bool) -> None:
    backbone = backbone_of(toy_clip(), freeze_patch=freeze)
    backbone(torch.randn(2, 3, 32, 32)).sum().backward()
    assert (backbone.embed.conv1.weight.grad is None) == freeze
    assert backbone.embed.positional_embedding.grad is not None
    assert backbone.embed.class_embedding.grad is not None


def test_checkpointed_blocks_give_the_same_gradient() -> None:
    images, grads = torch.randn(2, 3, 32, 32), []
    for flag in (False, True):
        backbone = backbone_of(toy_clip(), grad_checkpoint=flag).train()
        backbone(images).square().sum().backward()
        grads.append([p.grad for p in backbone.parameters() if p.requires_grad])
    torch.testing.assert_close(grads[0], grads[1])


def test_unit_parts() -> None:
    features = torch.randn(4, 48)
    v, p = features[:, :32], features[:, 32:]
    expected = torch.cat([v / v.norm(dim=1, keepdim=True), p / p.norm(dim=1, keepdim=True)], 1) / 2**0.5
    torch.testing.assert_close(unit_parts(features, (32, 16)), expected)


def test_convolutional_stem_has_the_same_grid(tmp_path: Path) -> None:
    path = tmp_path / "stem.json"
    path.write_text(json.dumps({"model_cfg": TOY, "conv_stem": [8, 16]}))
    model = build_open_clip(describe(str(path))).eval()
    images = torch.randn(2, 3, 32, 48)
    assert model.visual.conv1(images).shape == (2, 32, 4, 6)
    backbone = backbone_of(model, (32, 48))
    assert backbone.embed.grid == (4, 6)
    backbone(images).sum().backward()
    assert all(p.grad is None for p in backbone.embed.conv1.parameters())
    alone = torch.cat([backbone(image[None]) for image in images])  # nothing depends on the batch
    torch.testing.assert_close(backbone.train()(images), alone)
    with pytest.raises(ValueError, match="STRIDE is 4, but a convolutional stem"):
        backbone_of(model, stride=4)
    path.write_text(json.dumps({"model_cfg": TOY, "conv_stem": [8]}))
    with pytest.raises(ValueError, match="2 stages make patches of 4 pixels, not"):
        build_open_clip(describe(str(path)))


# ---------------------------------------------------------------- weights, offline


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated; old archives stay
def test_weights_from_a_file(toy_file: Path, tmp_path: Path) -> None:
    model = toy_clip()
    save_file(model.state_dict(), tmp_path / "toy.safetensors")
    torch.save({"state_dict": model.state_dict()}, tmp_path / "toy.pt")
    torch.jit.save(
        torch.jit.trace(model.visual, torch.randn(1, 3, 32, 32), check_trace=False), tmp_path / "visual.pt"
    )
    for name in ("toy.safetensors", "toy.pt"):
        loaded = build_open_clip(describe(str(toy_file)), str(tmp_path / name))
        torch.testing.assert_close(loaded.state_dict(), model.state_dict())
    with pytest.raises(RuntimeError, match="Missing key"):  # a part of a model is not taken for the whole
        build_open_clip(describe(str(toy_file)), str(tmp_path / "visual.pt"))


@pytest.mark.filterwarnings("ignore")  # tracing is deprecated; old archives stay
def test_torchscript_archive_means_quick_gelu(toy_file: Path, tmp_path: Path) -> None:
    """As OpenAI ships them: half precision, and three numbers stand beside the weights."""
    model = toy_clip()
    tokens = torch.zeros(1, 20, dtype=torch.int64)
    shipped = copy.deepcopy(model)
    for name in ("input_resolution", "context_length", "vocab_size"):
        shipped.__dict__.pop(name, None)
        shipped.register_buffer(name, torch.tensor(32))
    traced = torch.jit.trace(shipped, (torch.randn(1, 3, 32, 32), tokens), check_trace=False)
    torch.jit.save(traced.half(), tmp_path / "openai.pt")
    loaded = build_open_clip(describe(str(toy_file)), str(tmp_path / "openai.pt"))
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, model.state_dict()[key], rtol=1e-3, atol=1e-4)
    assert type(loaded.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert type(model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "GELU"


def test_missing_weights_name_the_command_and_never_use_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("network touched")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(Path, "home", lambda: Path("/nowhere"))
    command = re.escape("open_clip.create_model('ViT-B-16', pretrained='openai')")
    with pytest.raises(FileNotFoundError, match="'openai', which is not in the local cache.*" + command):
        find_weights("ViT-B-16", "openai")
    with pytest.raises(FileNotFoundError, match="neither a file nor a tag.*" + command):
        find_weights("ViT-B-16", "gone.pt")


def test_a_cached_tag_is_found_and_brings_its_quick_gelu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cached = tmp_path / "open_clip_model.safetensors"
    cached.touch()
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: str(cached))
    path, tag = find_weights("ViT-B-16", "openai")
    assert path == cached
    assert tag["quick_gelu"]


@pytest.mark.parametrize("name", ["RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32", "xlm-roberta-base-ViT-B-32"])
def test_other_towers_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be used because its (image|text) tower"):
        describe(name)


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"'ViT-B-17', which open_clip does not have.*ViT-B-16"):
        describe("ViT-B-17")
    with pytest.raises(FileNotFoundError, match=r"no file gone\.json"):
        describe("gone.json")


# ---------------------------------------------------------------- inside fast-reid


def test_feat_dim_is_checked(toy_file: Path) -> None:
    cfg = toy_cfg(toy_file)
    cfg.MODEL.BACKBONE.FEAT_DIM = 2048
    with pytest.raises(ValueError, match=r"FEAT_DIM is 2048.*set it to 48"):
        build_clip_vit_backbone(cfg)


def test_weights_are_loaded_only_with_pretrain(toy_file: Path, tmp_path: Path) -> None:
    model = toy_clip()
    save_file(model.state_dict(), tmp_path / "toy.safetensors")
    cfg = toy_cfg(toy_file, PRETRAINED=str(tmp_path / "toy.safetensors"))
    torch.manual_seed(1)
    cfg.MODEL.BACKBONE.PRETRAIN = False
    assert not torch.equal(build_clip_vit_backbone(cfg).project.weight, model.visual.proj)
    cfg.MODEL.BACKBONE.PRETRAIN = True
    assert torch.equal(build_clip_vit_backbone(cfg).project.weight, model.visual.proj)


@pytest.mark.parametrize("head", ["EmbeddingHead", "ClipNeckHead"])
@pytest.mark.parametrize("pool", ["Identity", "GlobalAvgPool"])
def test_plain_fastreid_baseline_trains(toy_file: Path, head: str, pool: str) -> None:
    from fastreid.modeling import build_model
    from fastreid.utils.events import EventStorage

    cfg = toy_cfg(toy_file)
    cfg.MODEL.HEADS.NAME, cfg.MODEL.HEADS.POOL_LAYER = head, pool
    cfg.MODEL.HEADS.NUM_CLASSES, cfg.MODEL.HEADS.WITH_BNNECK = 3, True
    cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss", "TripletLoss")
    model = build_model(cfg).train()
    batch = {"images": torch.rand(6, 3, 32, 32) * 255, "targets": torch.tensor([0, 0, 1, 1, 2, 2])}
    with EventStorage():
        losses = model(batch)
    assert set(losses) == {"loss_cls", "loss_triplet"}
    sum(losses.values()).backward()
    assert model.backbone.blocks[0].mlp.c_fc.weight.grad.abs().sum() > 0
    assert model.eval()({"images": torch.rand(2, 3, 32, 32) * 255}).shape == (2, 48)


def test_dual_stream_copies_parts_per_domain() -> None:
    from dnreid_plugins.modeling.dual_stream import DualStream

    images, domains = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 0, 1])
    expected = backbone_of(toy_clip())(images)
    stream = DualStream(backbone_of(toy_clip()), ("embed", "blocks.0"))
    torch.testing.assert_close(stream(images, domains), expected)
    (stream(images, domains)[domains == 1]).sum().backward()
    assert stream.backbone.embed.night.class_embedding.grad.abs().sum() > 0
    day = stream.backbone.embed.day.class_embedding.grad
    assert day is None or not day.any()
