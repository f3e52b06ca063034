"""Every shipped config merges, passes the pre-flight checks of its model and builds what it names."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastreid.config import CfgNode, get_cfg
from fastreid.modeling.meta_arch import build_model

from dnreid_plugins.engine.config_merge import merge_with_suggestions
from dnreid_plugins.engine.prompt_options import PromptStageOptions
from dnreid_plugins.engine.schedule import plan_from_config
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY, build_loss_heads

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(
    path
    for home in ("configs", "projects")
    for path in (ROOT / home).rglob("*.yml")
    if path.name != "tables.yml" and not path.name.startswith("Base-")
)


def read(path: Path) -> CfgNode:
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(path), ["MODEL.DEVICE", "cpu"])
    return cfg


def test_there_are_configs() -> None:
    names = {str(path.relative_to(ROOT)) for path in CONFIGS}
    assert {f"projects/CIA/configs/{name}.yml" for name in ("dn348", "dnwild", "regdb", "dnmini")} <= names
    assert {
        f"projects/BridgingDayNight/configs/{n}.yml" for n in ("dn348", "dnwild", "regdb", "dnmini")
    } <= names


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_config_merges_and_its_parts_build(path: Path) -> None:
    cfg = read(path)
    plan_from_config(cfg, iters_per_epoch=cfg.DATALOADER.ITERS_PER_EPOCH or 100)
    PromptStageOptions.from_config(cfg)
    if any(name in LOSS_HEAD_REGISTRY._obj_map for name in cfg.MODEL.LOSSES.NAME):
        heads = build_loss_heads(cfg)
        last = cfg.SOLVER.MAX_EPOCH
        assert all(head.weight_at(last) > 0 for head in heads.values()), "a head that never trains"


@pytest.mark.parametrize(
    "name", ["projects/CIA/configs/dn348.yml", "projects/BridgingDayNight/configs/dn348.yml"]
)
def test_the_full_size_models_build(name: str) -> None:
    cfg = read(ROOT / name)
    cfg.MODEL.BACKBONE.PRETRAIN = False
    model = build_model(cfg)
    count = sum(p.numel() for p in model.parameters())
    assert 20e6 < count < 100e6
    assert set(model.loss_heads) == set(cfg.MODEL.LOSSES.NAME)
