"""The time left counts what is no step, and a run that trains is never silent for long."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from fastreid.config import CfgNode
from fastreid.utils.events import EventStorage
from run_helpers import train

from dnreid_plugins.dnmini.write import write_dnmini
from dnreid_plugins.engine import time_left
from dnreid_plugins.engine.hooks import evaluates_after
from dnreid_plugins.engine.time_left import TimeLeft, TrainingLine
from dnreid_plugins.runtime import progress
from dnreid_plugins.runtime.progress import with_progress


class Run:
    """Epochs of two steps; the clock is set by hand."""

    def __init__(self, period: int, max_epoch: int) -> None:
        self.now = 0.0
        self.hook = TimeLeft(lambda done: evaluates_after(done, period, max_epoch), clock=lambda: self.now)
        self.state = self.hook.trainer = SimpleNamespace(
            epoch=0, iter=0, max_epoch=max_epoch, max_iter=2 * max_epoch
        )

    def epoch(self, labels: float, step: float, behind: float) -> list[float | None]:
        """One epoch in which these take so long; returns the time left as each step's end shows it."""
        shown = []
        self.hook.before_epoch()
        self.now += labels
        for _ in range(2):
            self.hook.before_step()
            shown.append(self.hook.seconds())
            self.now += step
            self.state.iter += 1
        self.hook.after_epoch()
        self.now += behind
        self.state.epoch += 1
        return shown


def test_label_phases_and_evaluations_count() -> None:
    run = Run(period=2, max_epoch=4)
    with run.hook.evaluating_the_start():
        run.now += 50.0
    first = run.epoch(labels=10.0, step=1.0, behind=3.0)
    # at the second step of the first epoch: 6 steps, 3 label phases, 2 evaluations; what follows epoch 1 is unknown
    assert first == [None, 6 * 1.0 + 3 * 10.0 + 2 * 50.0]
    # one epoch on: 4 steps, 2 label phases, evaluations after epochs 2 and 4, 3 seconds after epoch 3
    assert run.epoch(labels=10.0, step=1.0, behind=60.0)[1] == 4 * 1.0 + 2 * 10.0 + 2 * 50.0 + 3.0
    assert run.epoch(labels=20.0, step=1.0, behind=3.0)[1] == 2 * 1.0 + 20.0 + 60.0 + 3.0
    assert run.epoch(labels=20.0, step=1.0, behind=60.0)[1] == 60.0


def test_the_line_says_it_and_is_due_after_four_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    clock = iter((0.0, 3.9, 4.0, 4.1, 5.0))
    line = TrainingLine(9, lambda: 3725.4, clock=lambda: next(clock))
    assert not line.due() and line.due()
    with EventStorage(3) as storage:
        storage.epoch = 0
        storage.put_scalars(total_loss=1.25, loss_cluster=0.5, time=0.2, data_time=0.1, lr=0.01)
        line.write()
        assert not line.due()
    assert caplog.messages == [
        "eta: 1:02:05  epoch/iter: 0/3  total_loss: 1.25  loss_cluster: 0.5  time: 0.2000  data_time: 0.1000  "
        "lr: 1.00e-02"
    ]


def test_a_run_says_where_it_is(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(time_left, "EVERY", 0.0)
    trainer = train(tiny_cfg)
    lines = [text for text in caplog.messages if "epoch/iter: " in text]
    assert [text.split("epoch/iter: ")[1].split()[0] for text in lines[:4]] == ["0/0", "0/1", "0/2", "0/3"]
    assert lines[1].startswith("eta: 0:00:") and "total_loss" in lines[1] and "lr: " in lines[1]
    left = trainer.time_left
    assert left.labels > 0 and left.behind[True] > 0 and left._steps == 8


def test_rendering_says_how_far_it_is(
    tmp_path: object, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    write_dnmini(tmp_path / "mini", num_train_ids=2, num_test_ids=2, images_per_domain=1, workers=1)  # type: ignore[operator]
    shares = [text.split(" after")[0] for text in caplog.messages if text.startswith("Rendering DNMini: ")]
    assert shares == [f"Rendering DNMini: {share} %" for share in (25, 50, 75)]


def test_on_a_terminal_it_is_a_bar(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    assert list(with_progress("abc", "Letters", 3)) == ["a", "b", "c"]
    assert "Letters" in capsys.readouterr().err and caplog.messages == []
