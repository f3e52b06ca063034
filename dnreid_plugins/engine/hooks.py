"""Hooks around the steps: parts after a step, evaluation, writers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastreid.engine.hooks import HookBase
from fastreid.utils.events import EventWriter

from .time_left import TrainingLine

logger = logging.getLogger(__name__)


class FollowStep(HookBase):
    """After the optimizer step: update the parts with the batch of all processes."""

    def after_step(self) -> None:
        model = self.trainer.bare_model
        model.parts.after_step(model.last_batch)


def evaluates_after(done: int, period: int, max_epoch: int) -> bool:
    """Whether there is an evaluation after ``done`` epochs; ``period`` 0 means only at the end."""
    return done == max_epoch or (period > 0 and done % period == 0)


class Evaluate(HookBase):
    """Evaluate every ``period`` epochs (0: only at the end) and after the last epoch.

    Unlike fast-reid's hook it logs the scalars at the current iteration, so that the writers keep them.
    """

    def __init__(self, period: int, evaluate: Callable[[], dict[str, Any]]) -> None:
        self.period = period
        self.evaluate = evaluate

    def after_epoch(self) -> None:
        if evaluates_after(self.trainer.epoch + 1, self.period, self.trainer.max_epoch):
            results = self.evaluate()
            self.trainer.storage.iter = self.trainer.iter
            self.trainer.storage.put_scalars(**flatten(results), smoothing_hint=False)


class Writers(HookBase):
    """Run the event writers every ``period`` iterations and at each epoch's end, `TrainingLine` when it is due.

    They open their files when training starts, after the files of an earlier run were moved aside.
    """

    def __init__(self, build: Callable[[], list[EventWriter]], period: int = 200) -> None:
        self.build = build
        self.writers: list[EventWriter] = []
        self.period = period

    def before_train(self) -> None:
        self.writers = self.build()

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.period == 0:
            self._write()
        for writer in self.writers:
            if isinstance(writer, TrainingLine) and writer.due():
                writer.write()

    def after_epoch(self) -> None:
        self._write()

    def after_train(self) -> None:
        for writer in self.writers:
            writer.close()

    def _write(self) -> None:
        for writer in self.writers:
            writer.write()


def flatten(results: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """``{"D2N": {"mAP": 1.0}}`` -> ``{"D2N/mAP": 1.0}``; what is not a number is left out."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}/"))
        elif isinstance(value, (int, float)):
            flat[f"{prefix}{key}"] = float(value)
    return flat
