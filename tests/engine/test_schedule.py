from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.solver import build_lr_scheduler as fastreid_schedulers
from torch import nn

from dnreid_plugins.engine.solver.optimizer import build_lr_scheduler
from dnreid_plugins.engine.solver.schedule import EpochSchedule, SchedulePlan, plan_from_config


def solver(**keys: Any) -> CfgNode:
    cfg = get_cfg()
    cfg.SOLVER.WARMUP_ITERS = 0
    for key, value in keys.items():
        cfg.SOLVER[key] = value
    return cfg


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [nn.Parameter(torch.zeros(2))], "lr": rate} for rate in rates or (0.1,)]
    return torch.optim.Adam(groups)


def fastreid_rates(cfg: CfgNode, iters_per_epoch: int) -> list[float]:
    """What fast-reid's own schedulers do when its LRScheduler hook drives them."""
    adam = optimizer(0.1)
    schedulers = fastreid_schedulers(cfg, adam, iters_per_epoch)
    rates = []
    for iteration in range(cfg.SOLVER.MAX_EPOCH * iters_per_epoch):
        rates.append(adam.param_groups[0]["lr"])
        adam.step()
        if iteration + 1 <= cfg.SOLVER.WARMUP_ITERS:
            schedulers["warmup_sched"].step()
        epoch, last = divmod(iteration + 1, iters_per_epoch)
        # In after_epoch fast-reid's trainer.iter is already that of the next step.
        if last == 0 and iteration + 2 > cfg.SOLVER.WARMUP_ITERS and epoch > cfg.SOLVER.DELAY_EPOCHS:
            schedulers["lr_sched"].step()
    return rates


def our_rates(cfg: CfgNode, iters_per_epoch: int, base: float = 0.1) -> list[float]:
    plan = plan_from_config(cfg, iters_per_epoch)
    return [plan.learning_rate(base, i) for i in range(cfg.SOLVER.MAX_EPOCH * iters_per_epoch)]


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*")
@pytest.mark.parametrize(
    "keys",
    [
        {"SCHED": "MultiStepLR", "STEPS": [4, 6], "MAX_EPOCH": 9},
        {"SCHED": "CosineAnnealingLR", "MAX_EPOCH": 7},
        {"SCHED": "CosineAnnealingLR", "MAX_EPOCH": 9, "WARMUP_ITERS": 7},
        {"SCHED": "CosineAnnealingLR", "MAX_EPOCH": 9, "WARMUP_ITERS": 10, "WARMUP_METHOD": "exp"},
        {"SCHED": "CosineAnnealingLR", "MAX_EPOCH": 9, "DELAY_EPOCHS": 4, "WARMUP_ITERS": 6},
        {"SCHED": "CosineAnnealingLR", "MAX_EPOCH": 9, "WARMUP_ITERS": 6, "WARMUP_METHOD": "constant"},
        {"SCHED": "MultiStepLR", "STEPS": [8], "MAX_EPOCH": 8, "WARMUP_ITERS": 9},
    ],
)
def test_where_fastreid_is_right_the_rates_are_its_own(keys: dict[str, Any]) -> None:
    cfg = solver(**keys)
    assert our_rates(cfg, 5) == pytest.approx(fastreid_rates(cfg, 5), rel=1e-9)


def test_milestones_count_from_the_start_although_there_is_a_warm_up() -> None:
    rates = our_rates(solver(STEPS=[4, 6], MAX_EPOCH=8, WARMUP_ITERS=10), 5)
    per_epoch = rates[::5]
    assert per_epoch[2:] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert rates[:3] == pytest.approx([0.01, 0.019, 0.028])
    assert rates[9] == pytest.approx(0.091)


def test_each_stage_runs_the_whole_schedule() -> None:
    cfg = solver(STEPS=[20, 40], MAX_EPOCH=100, STAGES=(51,), WARMUP_ITERS=10)
    rates = our_rates(cfg, 2)
    assert rates[:100] == rates[100:]
    assert rates[98] == pytest.approx(0.001)
    cosine = our_rates(solver(SCHED="CosineAnnealingLR", MAX_EPOCH=10, STAGES=(1, 5)), 1)
    assert cosine[0] == cosine[4] == 0.1
    assert cosine[3] == pytest.approx(1e-7 + (0.1 - 1e-7) * (1 + math.cos(math.pi * 3 / 4)) / 2)
    assert cosine[9] == pytest.approx(1e-7 + (0.1 - 1e-7) * (1 + math.cos(math.pi * 5 / 6)) / 2)


def test_a_stage_starts_with_a_fresh_optimizer_and_only_then() -> None:
    adam = optimizer(0.1)
    schedule = EpochSchedule(adam, SchedulePlan("step", iters_per_epoch=2, max_epoch=4, stage_starts=(0, 2)))
    parameter = adam.param_groups[0]["params"][0]
    steps = []
    for iteration in range(8):
        schedule.apply(iteration)
        parameter.grad = torch.ones(2)
        adam.step()
        steps.append(int(adam.state[parameter]["step"]))
    assert steps == [1, 2, 3, 4, 1, 2, 3, 4]


def test_every_group_keeps_its_share() -> None:
    adam = optimizer(0.1, 0.2)
    schedule = build_lr_scheduler(solver(STEPS=[1], MAX_EPOCH=2), adam, 3)
    schedule.apply(3)
    assert [group["lr"] for group in adam.param_groups] == pytest.approx([0.01, 0.02])
    assert schedule.plan.learning_rate(1.0, 2) == 1.0
    assert schedule.plan.learning_rate(1.0, 3) == pytest.approx(0.1)


@pytest.mark.parametrize("iteration", [0, 3, 7, 11])
def test_going_on_in_the_middle_gives_the_same_rate(iteration: int) -> None:
    cfg = solver(STEPS=[2], MAX_EPOCH=4, WARMUP_ITERS=5)
    straight, resumed = (build_lr_scheduler(cfg, optimizer(0.1), 3) for _ in range(2))
    for i in range(iteration + 1):
        straight.apply(i)
    resumed.apply(iteration)
    assert straight.optimizer.param_groups[0]["lr"] == resumed.optimizer.param_groups[0]["lr"]


def test_a_warm_up_longer_than_the_run_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    cfg = solver(WARMUP_ITERS=1000, MAX_EPOCH=10)
    with caplog.at_level(logging.WARNING):
        assert plan_from_config(cfg, 4).warmup_iters == 4
    assert (
        "SOLVER.WARMUP_ITERS 1000 is not shorter than the schedule (40 iterations) and is cut to 4"
        in caplog.text
    )
    assert our_rates(cfg, 4)[4] == 0.1
    # The shortest stage counts, and a warm-up that just fits stays.
    assert plan_from_config(solver(WARMUP_ITERS=8, MAX_EPOCH=10, STAGES=(9,)), 4).warmup_iters == 0
    assert plan_from_config(solver(WARMUP_ITERS=7, MAX_EPOCH=10, STAGES=(9,)), 4).warmup_iters == 7


@pytest.mark.parametrize(
    ("keys", "iters", "message"),
    [
        ({}, 0, "fewer training images than SOLVER.IMS_PER_BATCH 64"),
        ({"SCHED": "Poly"}, 5, "SOLVER.SCHED is 'Poly'; it must be one of MultiStepLR"),
        ({"WARMUP_METHOD": "sine"}, 5, "SOLVER.WARMUP_METHOD is 'sine'"),
        (
            {"STAGES": (200,)},
            5,
            r'MAX_EPOCH is 120, but .*STAGES \(200,\) begins .* epoch 200; .*STAGES "\(\)"',
        ),
        ({"STAGES": (50, 20)}, 5, "in ascending order"),
        ({"STAGES": (20, 20)}, 5, "in ascending order"),
        ({"STAGES": (-3,)}, 5, "in ascending order"),
    ],
)
def test_impossible_schedules_are_refused(keys: dict[str, Any], iters: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_from_config(solver(**keys), iters)


def test_the_hook_sets_the_rate_before_the_step_and_logs_that_of_the_largest_group() -> None:
    adam = torch.optim.Adam(
        [
            {"params": [nn.Parameter(torch.zeros(2))], "lr": 0.5},
            {"params": [nn.Parameter(torch.zeros(9))], "lr": 0.1},
        ]
    )
    hook = build_lr_scheduler(solver(STEPS=[1], MAX_EPOCH=2), adam, 2).hook()
    logged: list[tuple[str, float]] = []

    class Storage:
        def put_scalar(self, name: str, value: float, **_: Any) -> None:
            logged.append((name, value))

    class Trainer:
        iter = 2
        storage = Storage()

    hook.trainer = Trainer()
    hook.before_step()
    hook.after_step()
    assert logged == [("lr", pytest.approx(0.01))]
