"""Remaining time of a run, including label phases and evaluations, and the log line that shows it."""

from __future__ import annotations

import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Iterator

import torch
from fastreid.engine.train_loop import HookBase
from fastreid.utils.events import EventWriter, get_event_storage

logger = logging.getLogger(__name__)

#: Seconds after which a training run logs its progress; with one step more that is seldom over five.
EVERY = 4.0


class TimeLeft(HookBase):
    """Measures steps and the work before and after the steps of an epoch; must be the first hook of all.

    Args:
        evaluates_after: whether the first ``n`` epochs are followed by an evaluation.
        clock: seconds, monotonic.
    """

    def __init__(
        self, evaluates_after: Callable[[int], bool], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.evaluates_after = evaluates_after
        self.clock = clock
        # Newest duration of the work before the steps (labels), and after them with an evaluation or without.
        self.labels = 0.0
        self.behind = {True: 0.0, False: 0.0}
        self._stepping, self._steps = 0.0, 0
        self._mark: float | None = None
        self._in_labels = False
        self._behind_epoch = 0

    @contextlib.contextmanager
    def evaluating_the_start(self) -> Iterator[None]:
        """Inside, the initial model is evaluated: the first estimate of an evaluation's time."""
        begin = self.clock()
        yield
        self.behind[True] = self.clock() - begin

    def before_epoch(self) -> None:
        now = self.clock()
        if self._behind_epoch and self._mark is not None:
            self.behind[self.evaluates_after(self._behind_epoch)] = now - self._mark
        self._mark, self._behind_epoch = now, 0
        self._in_labels = True

    def before_step(self) -> None:
        now = self.clock()
        if self._mark is not None and self._in_labels:
            self.labels = now - self._mark
        self._end_of_step(now)
        self._in_labels = False

    def after_epoch(self) -> None:
        self._end_of_step(self.clock())
        self._behind_epoch = self.trainer.epoch + 1

    def _end_of_step(self, now: float) -> None:
        if self._mark is not None and not self._in_labels:
            self._stepping += now - self._mark
            self._steps += 1
        self._mark = now

    def seconds(self) -> float | None:
        """From the end of the running step to the end of the run; None before a step was measured."""
        if self._steps == 0:
            return None
        trainer = self.trainer
        steps = trainer.max_iter - trainer.iter - 1
        later = range(trainer.epoch + 2, trainer.max_epoch + 1)  # coming epochs, counted from 1
        behind = sum(self.behind[self.evaluates_after(epoch)] for epoch in (trainer.epoch + 1, *later))
        return steps * self._stepping / self._steps + len(later) * self.labels + behind


class TrainingLine(EventWriter):
    """fast-reid's line of the running training with the time left by `TimeLeft`; also due after `EVERY` seconds."""

    def __init__(
        self,
        max_iter: int,
        seconds_left: Callable[[], float | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_iter = max_iter
        self.seconds_left = seconds_left
        self.clock = clock
        self._last = clock()

    def due(self) -> bool:
        return self.clock() - self._last >= EVERY

    def write(self) -> None:
        storage = get_event_storage()
        self._last = self.clock()
        if storage.iter >= self.max_iter:
            return  # the training is over, the results follow
        histories = storage.histories()
        left = self.seconds_left()
        words = [] if left is None else [f"eta: {datetime.timedelta(seconds=int(left))}"]
        words.append(f"epoch/iter: {storage.epoch}/{storage.iter}")
        losses = {name: history for name, history in histories.items() if "loss" in name and "/" not in name}
        words += [f"{name}: {history.median(200):.4g}" for name, history in losses.items()]
        if "time" in histories:
            words.append(f"time: {histories['time'].global_avg():.4f}")
        if "data_time" in histories:
            words.append(f"data_time: {histories['data_time'].avg(20):.4f}")
        if "lr" in histories:
            words.append(f"lr: {histories['lr'].latest():.2e}")
        if torch.cuda.is_available():
            words.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        logger.info("%s", "  ".join(words))
