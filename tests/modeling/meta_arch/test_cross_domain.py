"""The meta-architecture: what goes in and out in both modes, and how batch norm sees the domains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fastreid.config import get_cfg
from fastreid.modeling.meta_arch import build_model

from dnreid_plugins.data.domain_images import DomainImages
from dnreid_plugins.functional.types import Clusters, Epoch
from dnreid_plugins.modeling.meta_arch import cross_domain


def config(**model: Any) -> Any:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "CrossDomainBaseline"
    cfg.MODEL.BACKBONE.NAME = "build_osnet_backbone"
    cfg.MODEL.BACKBONE.DEPTH = "x0_25"
    cfg.MODEL.BACKBONE.FEAT_DIM = 128
    cfg.MODEL.HEADS.NAME = "NeckHead"
    cfg.MODEL.HEADS.WITH_BNNECK = True
    cfg.MODEL.LOSSES.NAME = ("ClusterNCE",)
    cfg.MODEL.DUAL_STREAM.MODULES = ("conv1",)
    for key, value in model.items():
        cfg.MODEL.DUAL_STREAM[key] = value
    return cfg


def batch(size: int = 8) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    half = size // 2
    return {
        "images": torch.rand(size, 3, 32, 32, generator=generator) * 255,
        "targets": torch.arange(size) % 2,
        "domains": torch.tensor([0] * half + [1] * (size - half)),
        "indices": torch.arange(size),
    }


def ready(cfg: Any) -> Any:
    torch.manual_seed(0)
    model = build_model(cfg)
    rows = torch.nn.functional.normalize(torch.randn(2, 128), dim=1)
    side = Clusters(torch.arange(2), rows, rows, torch.arange(2))
    model.parts.begin_epoch(Epoch.of(side, side, 1, 1))
    return model


@pytest.mark.parametrize("shared_bn", ["joint", "separate", "frozen"])
def test_training_gives_weighted_losses_and_keeps_the_batch(shared_bn: str) -> None:
    model = ready(config(SHARED_BN=shared_bn)).train()
    inputs = batch()
    before = inputs["images"].clone()
    losses = model(inputs)
    assert list(losses) == ["loss_clusternce"] and losses["loss_clusternce"].requires_grad
    assert torch.equal(inputs["images"], before), "the caller's batch was overwritten"
    assert model.last_batch.unit.shape == (8, 128) and not model.last_batch.unit.requires_grad
    model.parts.losses["ClusterNCE"].schedule = [(1, 0.5)]
    model.eval(), model.train()


@pytest.mark.parametrize(
    ("modules", "shared_bn", "compared"),
    [
        (("conv1",), "joint", True),
        ((), "joint", False),
        ((), "separate", True),
        (("conv1",), "separate", True),
    ],
)
def test_processes_compare_their_domains_where_a_batch_norm_would_wait(
    monkeypatch: pytest.MonkeyPatch, modules: tuple[str, ...], shared_bn: str, compared: bool
) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(cross_domain, "check_composition", seen.append)
    inputs = batch()
    ready(config(MODULES=modules, SHARED_BN=shared_bn)).train()(inputs)
    assert [domains.tolist() for domains in seen] == [inputs["domains"].tolist()] * compared


def test_weight_zero_leaves_the_head_out_and_a_weight_scales_it() -> None:
    model = ready(config()).train()
    model.parts.losses["ClusterNCE"].schedule = [(2, 0.5)]
    assert model(batch()) == {}
    torch.manual_seed(3)
    model.parts.begin_epoch(replace(model.parts.epoch, number=2))
    half = model.losses(as_features(model))["loss_clusternce"]
    model.parts.losses["ClusterNCE"].schedule = [(1, 1.0)]
    torch.testing.assert_close(2 * half, model.losses(as_features(model))["loss_clusternce"])


def as_features(model: Any) -> Any:
    torch.manual_seed(3)
    model(batch())
    return model.last_batch


def test_eval_returns_features_and_two_streams_want_the_domains() -> None:
    model = ready(config()).eval()
    inputs = batch()
    with torch.no_grad():
        full = model(inputs)
        assert full.shape == (8, 128) and torch.equal(full, model(inputs))
        carried = DomainImages.of(inputs["images"], inputs["domains"])
        assert torch.equal(model(carried), full) and torch.equal(model({"images": carried}), full)
    for bare in (inputs["images"], {"images": inputs["images"]}):
        with pytest.raises(ValueError, match=r"8 images came without `domains` .*ASSUME_DOMAIN"):
            model(bare)
        with pytest.raises(ValueError, match="8 images came without `domains`"):
            model.encode({"images": inputs["images"]}, feature="before")
        with pytest.raises(ValueError, match="8 images came without `domains`"):
            ready(config()).train()({key: value for key, value in inputs.items() if key != "domains"})


def test_one_stream_or_a_key_do_without_domains() -> None:
    inputs = batch()
    with torch.no_grad():
        one = ready(config(MODULES=())).eval()
        torch.testing.assert_close(one(inputs["images"]), one(inputs))
        told = ready(config(ASSUME_DOMAIN="night")).eval()
        told.backbone.backbone.conv1.night.conv.weight.mul_(-1)
        night = told({"images": inputs["images"], "domains": torch.ones(8, dtype=torch.int64)})
        torch.testing.assert_close(told(inputs["images"]), night)
        assert not torch.allclose(told(inputs)[:4], night[:4]), "a batch's own domains go first"
    with pytest.raises(ValueError, match="The domain is 'dusk'"):
        build_model(config(ASSUME_DOMAIN="dusk"))


def test_separate_passes_normalise_each_domain_by_itself() -> None:
    """With separate passes a domain's training features do not depend on the other domain's images."""
    inputs = batch()
    changed = {**inputs, "images": inputs["images"].clone()}
    changed["images"][inputs["domains"] == 1] *= 0.3
    day = inputs["domains"] == 0
    kept = {}
    for mode in ("joint", "separate"):
        features = []
        for one in (inputs, changed):
            model = ready(config(SHARED_BN=mode)).train()
            model(one)
            features.append(model.last_batch.features[day])
        kept[mode] = torch.allclose(features[0], features[1], atol=1e-5)
    assert kept == {"joint": False, "separate": True}


def test_separate_passes_keep_the_batch_order() -> None:
    inputs = batch()
    order = torch.tensor([5, 0, 7, 2, 1, 6, 3, 4])
    shuffled = {key: value[order] for key, value in inputs.items()}
    model = ready(config(SHARED_BN="separate")).train()
    model(inputs)
    expected = model.last_batch.features[order]
    model = ready(config(SHARED_BN="separate")).train()
    model(shuffled)
    torch.testing.assert_close(model.last_batch.features, expected, rtol=1e-4, atol=1e-5)


def test_frozen_statistics_stay_as_loaded() -> None:
    model = ready(config(SHARED_BN="frozen")).train()
    shared = list(model.backbone.shared_batch_norms())
    before = [m.running_mean.clone() for m in shared]
    model(batch())
    assert shared and all(torch.equal(a, m.running_mean) for a, m in zip(before, shared, strict=True))


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match=r"MODEL\.DUAL_STREAM\.SHARED_BN is 'mixed'"):
        build_model(config(SHARED_BN="mixed"))


def test_an_unknown_pooling_is_refused() -> None:
    cfg = config()
    cfg.MODEL.HEADS.POOL_LAYER = "MeanPool"
    with pytest.raises(ValueError, match="POOL_LAYER is 'MeanPool'"):
        build_model(cfg)
