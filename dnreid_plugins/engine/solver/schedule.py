"""The learning rate as a function of the iteration, which makes a resume exact."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from fastreid.engine.train_loop import HookBase
from torch.optim.optimizer import Optimizer

logger = logging.getLogger(__name__)

SCHEDULES = {"MultiStepLR": "step", "StepLR": "step", "CosineAnnealingLR": "cosine"}
WARMUPS = ("linear", "constant", "exp")
# Length of a warm-up that would not end within the run.
CLIPPED_WARMUP = 0.1


@dataclass(frozen=True)
class SchedulePlan:
    """When the learning rate changes. Epochs count from 0 here, milestones from the start of a stage.

    Attributes:
        kind: ``"step"`` (``gamma`` at each of ``milestones``) or ``"cosine"`` (down to ``min_lr`` at the
            stage's last epoch), both per epoch.
        iters_per_epoch, max_epoch: length of an epoch and of the run.
        stage_starts: first epochs of the stages, always including 0; each stage runs the whole schedule.
        delay_epochs: the decay does not begin before this epoch of a stage.
        warmup_iters, warmup_factor, warmup_method: as in fast-reid, per iteration, repeated in each stage.
    """

    kind: str
    iters_per_epoch: int
    max_epoch: int
    stage_starts: tuple[int, ...] = (0,)
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    min_lr: float = 0.0
    delay_epochs: int = 0
    warmup_iters: int = 0
    warmup_factor: float = 0.1
    warmup_method: str = "linear"

    def learning_rate(self, base: float, iteration: int) -> float:
        """The rate at step ``iteration`` (from 0) for a group whose full rate is ``base``."""
        epoch = iteration // self.iters_per_epoch
        start, length = self._stage(epoch)
        decayed = self._decayed(base, epoch - start, length)
        return decayed * self._warmup(iteration - start * self.iters_per_epoch)

    def restarts_at(self, iteration: int) -> bool:
        """Whether a stage other than the first begins with this iteration."""
        return iteration > 0 and iteration in {start * self.iters_per_epoch for start in self.stage_starts}

    def _stage(self, epoch: int) -> tuple[int, int]:
        start = max(first for first in self.stage_starts if first <= epoch)
        end = min((first for first in self.stage_starts if first > epoch), default=self.max_epoch)
        return start, max(end, epoch + 1) - start

    def _decayed(self, base: float, epoch: int, length: int) -> float:
        if self.kind == "step":
            if epoch < self.delay_epochs:
                return base
            return base * self.gamma ** sum(milestone <= epoch for milestone in self.milestones)
        # As in fast-reid: the first step down comes in the epoch that follows the warm-up's end or the delay.
        warm = math.ceil(self.warmup_iters / self.iters_per_epoch)
        done = max(epoch - max(warm - 1, self.delay_epochs), 0)
        span = max(length - max(warm, self.delay_epochs), 1)
        return self.min_lr + (base - self.min_lr) * (1 + math.cos(math.pi * done / span)) / 2

    def _warmup(self, iteration: int) -> float:
        if iteration >= self.warmup_iters:
            return 1.0
        done = iteration / self.warmup_iters
        if self.warmup_method == "linear":
            return self.warmup_factor * (1 - done) + done
        return self.warmup_factor if self.warmup_method == "constant" else self.warmup_factor ** (1 - done)


class EpochSchedule:
    """Sets the learning rate of each group from the iteration alone; at the start of a stage the optimizer is reset.

    Args:
        optimizer: its groups' present rates are the full ones.
        plan: see `SchedulePlan`.
    """

    def __init__(self, optimizer: Optimizer, plan: SchedulePlan) -> None:
        self.optimizer = optimizer
        self.plan = plan
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]

    def apply(self, iteration: int) -> None:
        """Prepare the optimizer for step ``iteration``."""
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            group["lr"] = self.plan.learning_rate(base, iteration)
        if self.plan.restarts_at(iteration):
            logger.info(
                "Iteration %d: a new stage, optimizer and learning-rate schedule are reset.", iteration
            )
            self.optimizer.state.clear()

    def hook(self) -> HookBase:
        """The hook that calls `apply` before each step and logs the rate of the largest group."""
        return _ScheduleHook(self)


class _ScheduleHook(HookBase):
    def __init__(self, schedule: EpochSchedule) -> None:
        self.schedule = schedule
        groups = schedule.optimizer.param_groups
        self.shown = max(range(len(groups)), key=lambda i: sum(p.numel() for p in groups[i]["params"]))

    def before_step(self) -> None:
        self.schedule.apply(self.trainer.iter)

    def after_step(self) -> None:
        rate = self.schedule.optimizer.param_groups[self.shown]["lr"]
        self.trainer.storage.put_scalar("lr", rate, smoothing_hint=False)


def plan_from_config(cfg: Any, iters_per_epoch: int) -> SchedulePlan:
    """The plan that the ``SOLVER`` keys describe.

    ``STEPS`` count epochs from the start of the stage, not from the end of the warm-up. A warm-up longer than
    the shortest stage is cut to a tenth of it, with a warning.

    Raises:
        ValueError: an unknown schedule or warm-up, stages out of order, or an epoch without iterations.
    """
    solver = cfg.SOLVER
    if iters_per_epoch < 1:
        raise ValueError(
            f"An epoch has {iters_per_epoch} iterations, since there are fewer training images than "
            f"SOLVER.IMS_PER_BATCH {solver.IMS_PER_BATCH}; lower it."
        )
    if solver.SCHED not in SCHEDULES:
        raise ValueError(f"SOLVER.SCHED is {solver.SCHED!r}; it must be one of {', '.join(SCHEDULES)}.")
    if solver.WARMUP_METHOD not in WARMUPS:
        raise ValueError(
            f"SOLVER.WARMUP_METHOD is {solver.WARMUP_METHOD!r}; it must be one of {', '.join(WARMUPS)}."
        )
    starts = _stage_starts(tuple(solver.get("STAGES", ())), solver.MAX_EPOCH)
    ends = (*starts[1:], solver.MAX_EPOCH)
    shortest = min(end - start for start, end in zip(starts, ends, strict=True)) * iters_per_epoch
    return SchedulePlan(
        kind=SCHEDULES[solver.SCHED],
        iters_per_epoch=iters_per_epoch,
        max_epoch=solver.MAX_EPOCH,
        stage_starts=starts,
        milestones=tuple(solver.STEPS),
        gamma=solver.GAMMA,
        min_lr=solver.ETA_MIN_LR,
        delay_epochs=solver.DELAY_EPOCHS,
        warmup_iters=_warmup_iters(solver.WARMUP_ITERS, shortest),
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_method=solver.WARMUP_METHOD,
    )


def _stage_starts(stages: tuple[int, ...], max_epoch: int) -> tuple[int, ...]:
    """``SOLVER.STAGES`` counts from 1 and may contain epoch 1; here epochs count from 0 and 0 is always included."""
    whole = all(type(epoch) is int and epoch >= 1 for epoch in stages)
    starts = (0, *(epoch - 1 for epoch in stages if epoch != 1)) if whole else ()
    if whole and max(stages, default=1) > max(max_epoch, 1):
        raise ValueError(
            f"SOLVER.MAX_EPOCH is {max_epoch}, but SOLVER.STAGES {stages} begins a stage at epoch {max(stages)}; "
            'raise MAX_EPOCH, or train in one stage with SOLVER.STAGES "()".'
        )
    if not whole or list(starts) != sorted(set(starts)):
        raise ValueError(
            f"SOLVER.STAGES is {stages}; it must list the first epochs of the later stages in ascending order, "
            f"each from 1 to MAX_EPOCH {max_epoch}."
        )
    return starts


def _warmup_iters(wanted: int, shortest: int) -> int:
    if wanted < shortest or wanted <= 0:
        return wanted
    clipped = int(shortest * CLIPPED_WARMUP)
    logger.warning(
        "SOLVER.WARMUP_ITERS %d is not shorter than the schedule (%d iterations) and is cut to %d; set it to "
        "what you mean.",
        wanted,
        shortest,
        clipped,
    )
    return clipped
