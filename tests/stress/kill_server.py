"""Imports everything once, then forks a process per trial, so that a kill costs a second and not ten.

Reads one JSON trial per line: ``opts``, ``resume`` and optionally ``trap``, the place at which the
process kills itself with SIGKILL. Answers with the process id, and with its exit status when it has ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parents[2])]

from tiny_run import tiny_config  # noqa: E402

# isort: split
import torch  # noqa: E402
from run_helpers import label_phase  # noqa: E402

import dnreid_plugins.engine.checkpoint_files as checkpoint  # noqa: E402
from dnreid_plugins.engine.hooks import Evaluate  # noqa: E402
from dnreid_plugins.engine.stages import base as stage_base  # noqa: E402
from dnreid_plugins.engine.stages.prompt_training import PromptStage  # noqa: E402
from dnreid_plugins.engine.trainer import CrossDomainTrainer  # noqa: E402
from dnreid_plugins.runtime import files  # noqa: E402


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Trap:
    """Kills this process at the ``count``-th visit of ``place``; notes in ``marker`` where the run is."""

    def __init__(self, marker: str, place: str = "", count: int = 1, after_bytes: int = 0) -> None:
        self.marker = os.open(marker, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        self.place, self.count, self.after_bytes = place, count, after_bytes

    def visit(self, place: str) -> None:
        os.pwrite(self.marker, place.ljust(40).encode(), 0)
        if place == self.place:
            self.count -= 1
            if self.count == 0 and not self.after_bytes:
                kill()

    def around(self, owner: Any, name: str, place: str) -> None:
        inner = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            self.visit(f"{place} begins")
            result = inner(*args, **kwargs)
            self.visit(f"{place} ended")
            return result

        setattr(owner, name, outer)

    def in_files(self) -> None:
        """Checkpoint writes: inside the bytes, before and after the rename."""
        write, replace = files.write_atomically, os.replace

        def traced(path: Any, writer: Callable[[Any], Any]) -> None:
            def slow(file: Any) -> None:
                self.visit("checkpoint write begins")
                writer(_Counting(file, self))
                self.visit("checkpoint written")

            write(path, slow)
            self.visit("checkpoint renamed")

        def renamed(source: Any, target: Any) -> None:
            self.visit("checkpoint rename begins")
            replace(source, target)

        checkpoint.write_atomically = files.write_atomically = stage_base.write_atomically = traced
        files.os.replace = renamed  # type: ignore[assignment]


class _Counting:
    """A file in which the process dies once so many bytes are in it."""

    def __init__(self, file: Any, trap: Trap) -> None:
        self.file, self.trap, self.bytes = file, trap, 0

    def write(self, data: bytes) -> int:
        trap = self.trap
        if trap.place == "checkpoint bytes" and trap.count <= 1:
            self.file.write(bytes(data)[: max(trap.after_bytes - self.bytes, 0)])
            self.bytes += len(data)
            if self.bytes >= trap.after_bytes:
                self.file.flush()
                kill()
            return len(data)
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def train(opts: list[Any], resume: bool, trap: Trap) -> None:
    """One run of the tiny config under ``trap``."""
    trainer = CrossDomainTrainer(tiny_config(opts))
    trap.around(PromptStage, "train_step", "stage 1 step")
    trap.around(label_phase(trainer), "extract", "label phase: extract")
    trap.around(label_phase(trainer), "_start", "label phase: rebuild")
    trap.around(trainer, "run_step", "iteration")
    trap.around(trainer.bare_model.parts.memory, "after_step", "memory update")
    trap.around(trainer.step_trainer.optimizer, "step", "optimizer step")
    trap.around(trainer.checkpoints.files, "save", "checkpoint")
    for hook in trainer._hooks:
        if isinstance(hook, Evaluate):
            trap.around(hook, "evaluate", "evaluation")
    trap.in_files()
    trainer.resume_or_load(resume=resume)
    trainer.train()


def main() -> None:
    """Serve trials until the input ends."""
    for line in sys.stdin:
        trial = json.loads(line)
        child = os.fork()
        if child == 0:
            log = os.open(trial["log"], os.O_CREAT | os.O_WRONLY | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            torch.set_num_threads(1)
            trap = Trap(trial["marker"], **trial.get("trap", {}))
            train(trial["opts"], trial["resume"], trap)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
