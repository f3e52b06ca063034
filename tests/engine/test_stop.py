"""SIGTERM and Ctrl-C: the state is kept, the run leaves, and a resume ends as if nothing had happened."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import label_phase, weights

from dnreid_plugins import cli
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.json_lines import drop_rows
from dnreid_plugins.runtime.signals import SIGNALS, Stopped, StopSignals


def start(cfg: CfgNode, *, resume: bool = False) -> CrossDomainTrainer:
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer


def signal_in(trainer: CrossDomainTrainer, where: str, number: int, iteration: int) -> None:
    """Send this process ``number`` inside a step, or inside the label phase, at ``iteration``."""
    owner, name = {"step": (trainer, "run_step"), "label phase": (label_phase(trainer), "extract")}[where]
    inner = getattr(owner, name)

    def outer() -> Any:
        result = inner()
        if trainer.iter == iteration:
            os.kill(os.getpid(), number)
        return result

    setattr(owner, name, outer)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("where", "iteration", "period", "kept_at"),
    [("step", 1, 1, 2), ("step", 3, 1, 4), ("step", 5, 1, 6), ("label phase", 4, 0, 4)],
)
def test_a_run_that_is_asked_to_end_goes_on_later_bit_for_bit(
    tiny_cfg: CfgNode, tmp_path: Path, number: int, where: str, iteration: int, period: int, kept_at: int
) -> None:
    tiny_cfg.SOLVER.CHECKPOINT_PERIOD = period
    whole = start(tiny_cfg)
    whole.train()
    tiny_cfg.OUTPUT_DIR = str(tmp_path / "cut")
    cut = start(tiny_cfg)
    signal_in(cut, where, number, iteration)
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught:
        cut.train()
    assert caught.value.code == 128 + number and signal.getsignal(number) == before
    resumed = start(tiny_cfg, resume=True)
    assert resumed.iter == kept_at
    resumed.train()
    after = weights(resumed)
    assert [key for key, value in weights(whole).items() if not torch.equal(value, after[key])] == []


def test_with_nothing_to_lose_a_run_leaves_at_once(tiny_cfg: CfgNode, caplog: Any) -> None:
    """In the first label phase nothing is trained yet: no file is written."""
    trainer = start(tiny_cfg)
    signal_in(trainer, "label phase", signal.SIGTERM, 0)
    with pytest.raises(Stopped):
        trainer.train()
    assert list(Path(tiny_cfg.OUTPUT_DIR).glob("*.pth")) == []
    ended = "Ended by SIGTERM: there was nothing new to save. There is no saved state to resume from; start it again."
    assert ended in caplog.messages


def test_between_two_epochs_there_is_something_to_go_on_from(tiny_cfg: CfgNode, caplog: Any) -> None:
    trainer = start(tiny_cfg)
    signal_in(trainer, "label phase", signal.SIGINT, 4)
    with pytest.raises(Stopped):
        trainer.train()
    assert "Ended by Ctrl-C: there was nothing new to save. Continue with --resume." in caplog.messages


def test_ctrl_c_before_training_is_a_sentence(tiny_cfg: CfgNode, caplog: Any) -> None:
    """Reading the data, rendering and the evaluation of the start are under no `StopSignals`."""
    with pytest.raises(Stopped) as caught, cli.sentences():
        raise KeyboardInterrupt
    assert caught.value.code == 130
    assert "Ended by Ctrl-C while nothing was trained" in caplog.text


def test_a_resume_without_a_checkpoint_says_that_it_begins_afresh(tiny_cfg: CfgNode, caplog: Any) -> None:
    trainer = start(tiny_cfg, resume=True)
    assert f"--resume: there is no checkpoint in {tiny_cfg.OUTPUT_DIR}, so the run starts" in caplog.text
    assert trainer.iter == 0


def test_the_second_signal_does_not_wait() -> None:
    signals = StopSignals(lambda: False)
    signals.install()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.wanted == signal.SIGINT
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.wanted == signal.SIGTERM
        with pytest.raises(Stopped):
            os.kill(os.getpid(), signal.SIGTERM)
    finally:
        signals.remove()


class Interrupted(io.RawIOBase):
    """A file during whose first write this process receives Ctrl-C, and then SIGTERM while that is being said."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.lines.append(bytes(content))
        if len(self.lines) <= len(SIGNALS):
            os.kill(os.getpid(), SIGNALS[-len(self.lines)])
        return len(content)


def test_signals_inside_a_write_to_the_log_are_said_after_it(capfd: Any) -> None:
    """A stream refuses a second write by the thread that is inside one, which logging prints with a traceback."""
    file = Interrupted()
    handler = logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(file), line_buffering=True))
    logger, signals = logging.getLogger("dnreid_plugins.runtime.signals"), StopSignals(lambda: False)
    logger.addHandler(handler)
    signals.install()
    try:
        logger.warning("a line")
        while any(thread.name.endswith("(warning)") for thread in threading.enumerate()):
            time.sleep(0.01)
    finally:
        signals.remove()
        logger.removeHandler(handler)
    text = b"".join(file.lines).decode()
    assert (
        text.startswith("a line")
        and text.count("Ctrl-C: continuing") == text.count("SIGTERM: continuing") == 1
    )
    assert signals.wanted == signal.SIGTERM and "Logging error" not in capfd.readouterr().err


def test_a_forked_worker_dies_of_sigterm_and_ignores_ctrl_c() -> None:
    signals = StopSignals(lambda: False)
    signals.install()
    try:
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM
    finally:
        signals.remove()


def test_a_resume_drops_the_rows_that_it_will_write_again(tiny_cfg: CfgNode) -> None:
    tiny_cfg.SOLVER.CHECKPOINT_MINUTES = 1e-9
    tiny_cfg.SOLVER.CHECKPOINT_KEEP = 9
    start(tiny_cfg).train()
    folder = Path(tiny_cfg.OUTPUT_DIR)
    undisturbed = [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]
    for name in ("model_final.pth", "last_checkpoint", "model_iter00000007.pth"):
        (folder / name).unlink()
    with (folder / "health.jsonl").open("a") as file:
        file.write('{"epoch": 2, "day/clus')
    start(tiny_cfg, resume=True).train()
    again = [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]
    assert again == undisturbed
    rows = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert sum("DN348/D2N/mAP" in row for row in rows) == 1


def test_drop_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    assert drop_rows(path, "n", 1) == 0
    path.write_text('{"n": 1}\n{"other": 2}\n[3]\n{"n": 2}\n{"n": 3}\nnonsense\n{"n": 4')
    assert drop_rows(path, "n", 3) == 3
    assert path.read_text() == '{"n": 1}\n{"other": 2}\n[3]\n{"n": 2}\n'
    assert drop_rows(path, "n", 3) == 0
