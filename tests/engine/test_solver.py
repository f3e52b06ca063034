from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.solver.build import get_default_optimizer_params
from torch import nn

from dnreid_plugins.engine import preflight
from dnreid_plugins.engine.solver.optimizer import (
    OPTIMIZERS,
    build_lr_scheduler,
    build_optimizer,
    optimizer_class,
)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4)
        )
        self.heads = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3, bias=False), nn.LayerNorm(3))
        self.b1_head = nn.Linear(4, 2)

    def loss(self) -> torch.Tensor:
        features = self.backbone(torch.randn(6, 3, 4, 4)).mean((2, 3))
        return self.heads(features).exp().sum() + self.b1_head(features).exp().sum()


def solver(**keys: Any) -> CfgNode:
    cfg = get_cfg()
    for key, value in keys.items():
        node = cfg.SOLVER
        *path, last = key.split("__")
        for part in path:
            node = node[part]
        node[last] = value
    return cfg


def settings(groups: list[dict[str, Any]], model: nn.Module) -> dict[str, tuple[float, float]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("clip", [False, True])
def test_every_optimizer_moves_every_parameter_in_three_steps(name: str, clip: bool) -> None:
    model = Model()
    optimizer = build_optimizer(solver(OPT=name, BASE_LR=0.01, CLIP_GRADIENTS__ENABLED=clip), model)
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        model.loss().backward()
        optimizer.step()
    still = [key for key, value in model.named_parameters() if torch.equal(value, before[key])]
    assert still == []


def test_the_rules_for_bias_norm_and_heads_are_fastreids() -> None:
    model = Model()
    del model.b1_head
    keys = {"BIAS_LR_FACTOR": 2.0, "HEADS_LR_FACTOR": 10.0, "WEIGHT_DECAY": 0.3, "WEIGHT_DECAY_NORM": 0.2}
    optimizer = build_optimizer(solver(WEIGHT_DECAY_BIAS=0.1, BASE_LR=0.5, **keys), model)
    theirs = get_default_optimizer_params(
        model,
        base_lr=0.5,
        weight_decay=0.3,
        weight_decay_norm=0.2,
        bias_lr_factor=2.0,
        heads_lr_factor=10.0,
        weight_decay_bias=0.1,
    )
    ours = settings(optimizer.param_groups, model)
    assert ours == settings(theirs, model)
    assert len(optimizer.param_groups) == len(set(ours.values())) < len(theirs)


def test_heads_that_go_by_another_name_get_their_factor_too() -> None:
    model = Model()
    ours = settings(build_optimizer(solver(HEADS_LR_FACTOR=10.0, BASE_LR=0.1), model).param_groups, model)
    assert ours["b1_head.weight"][0] == ours["heads.1.weight"][0] == pytest.approx(1.0)
    assert ours["backbone.0.weight"][0] == 0.1


def test_merged_groups_step_as_single_ones_do() -> None:
    torch.manual_seed(0)
    merged, single = Model(), Model()
    single.load_state_dict(merged.state_dict())
    ours = build_optimizer(solver(OPT="AdamW", BASE_LR=0.01), merged)
    theirs = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.0005} for p in single.parameters()], lr=0.01
    )
    for model, optimizer in ((merged, ours), (single, theirs)):
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            model.loss().backward()
            optimizer.step()
    for (name, a), b in zip(merged.named_parameters(), single.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=name, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, float("inf")])
def test_the_norm_of_all_gradients_together_is_clipped(norm_type: float) -> None:
    model = Model()
    cfg = solver(OPT="SGD", MOMENTUM=0.0, BASE_LR=1.0, WEIGHT_DECAY=0.0)
    cfg.merge_from_list(["SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.25])
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = norm_type
    optimizer = build_optimizer(cfg, model)
    model.loss().backward()
    before = torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])
    old = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    optimizer.step()
    moved = old - torch.cat([p.detach().flatten() for p in model.parameters()])
    assert before.norm(norm_type) > 0.25
    assert moved.norm(norm_type) == pytest.approx(0.25, rel=1e-3)
    torch.testing.assert_close(moved / moved.norm(), before / before.norm(), rtol=1e-3, atol=1e-5)


def test_clipping_by_value_and_an_unknown_kind() -> None:
    model = Model()
    cfg = solver(
        CLIP_GRADIENTS__ENABLED=True, CLIP_GRADIENTS__CLIP_TYPE="value", CLIP_GRADIENTS__CLIP_VALUE=0.01
    )
    optimizer = build_optimizer(cfg, model)
    model.loss().backward()
    optimizer.step()
    assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) <= 0.01
    with pytest.raises(ValueError, match="CLIP_TYPE is 'both'; it must be 'norm' or 'value'"):
        build_optimizer(solver(CLIP_GRADIENTS__ENABLED=True, CLIP_GRADIENTS__CLIP_TYPE="both"), model)


def test_no_weight_decay_means_none_at_all(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        optimizer = build_optimizer(solver(WEIGHT_DECAY=0.0), Model())
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    assert "SOLVER.WEIGHT_DECAY is 0, so SOLVER.WEIGHT_DECAY_NORM (0.0005) counts as 0 too" in caplog.text


def test_frozen_parameters_are_left_out_and_all_frozen_is_refused() -> None:
    model = Model()
    model.backbone.requires_grad_(False)
    names = settings(build_optimizer(solver(), model).param_groups, model)
    assert names
    assert not any(name.startswith("backbone") for name in names)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="No parameter of the model is trainable"):
        build_optimizer(solver(), model)


def test_a_shared_parameter_is_in_one_group_once() -> None:
    model = Model()
    model.heads[1].weight = nn.Parameter(torch.randn(3, 4))
    model.tied = nn.Linear(4, 3, bias=False)
    model.tied.weight = model.heads[1].weight
    groups = build_optimizer(solver(), model).param_groups
    assert sum(p is model.tied.weight for group in groups for p in group["params"]) == 1


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(ValueError, match="SOLVER.OPT is 'SWA'; it must be one of SGD, Adam"):
        optimizer_class("SWA")


def test_the_schedule_comes_from_the_same_config() -> None:
    cfg = solver(MAX_EPOCH=2, STEPS=[1], WARMUP_ITERS=0, BASE_LR=0.1)
    optimizer = build_optimizer(cfg, Model())
    build_lr_scheduler(cfg, optimizer, 3).apply(3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_the_first_pattern_found_in_a_name_gives_its_factor() -> None:
    model = Model()
    factors = (("^backbone[.]0", 0.5), ("^backbone[.]", 0.1), ("1[.]weight$", 3.0))
    cfg = solver(BASE_LR=1.0, HEADS_LR_FACTOR=2.0, LR_FACTORS=factors)
    optimizer = build_optimizer(cfg, model)
    rates = {name: rate for name, (rate, _) in settings(optimizer.param_groups, model).items()}
    assert rates["backbone.0.weight"] == rates["backbone.0.bias"] == 0.5
    assert rates["backbone.1.weight"] == rates["backbone.2.weight"] == pytest.approx(0.1)
    assert rates["heads.0.weight"] == 2.0 and rates["heads.1.weight"] == 6.0 and rates["b1_head.bias"] == 2.0
    assert set(rates) == {name for name, _ in model.named_parameters()}


def test_the_schedule_keeps_the_factors() -> None:
    model = Model()
    cfg = solver(BASE_LR=1.0, LR_FACTORS=(("^backbone", 0.1),), STEPS=(1,), WARMUP_ITERS=0)
    cfg.SOLVER.SCHED, cfg.SOLVER.MAX_EPOCH = "MultiStepLR", 2
    optimizer = build_optimizer(cfg, model)
    build_lr_scheduler(cfg, optimizer, 5).apply(5)
    assert sorted({round(group["lr"], 9) for group in optimizer.param_groups}) == [0.01, 0.1]


def test_a_pattern_that_is_in_no_name_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"SOLVER\.LR_FACTORS has 'stem', which is found in the name of no parameter"
    ):
        build_optimizer(solver(LR_FACTORS=(("^backbone", 0.1), ("stem", 0.1))), Model())


@pytest.mark.parametrize(
    "pairs", [("backbone", 0.1), (("(", 0.1),), (("a", -1),), (("a", "x"),), (("a", float("nan")),)]
)
def test_other_than_patterns_and_factors_is_refused_before_the_training(pairs: Any) -> None:
    with pytest.raises(ValueError, match=r"SOLVER\.LR_FACTORS is .*; it holds \(pattern, factor\) pairs"):
        preflight.check(solver(LR_FACTORS=pairs))
