"""What the processes of a job do until one of them is lost; they find these functions by name."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from run_helpers import label_phase
from tiny_run import tiny_config

# isort: split
from fastreid.utils import comm

from dnreid_plugins.engine.hooks import Evaluate
from dnreid_plugins.engine.trainer import CrossDomainTrainer


def place_in(trainer: CrossDomainTrainer, name: str) -> tuple[Any, str]:
    """The object and the name of its function at which a process is lost."""
    evaluate = next(hook for hook in trainer._hooks if isinstance(hook, Evaluate))
    places = {
        "label phase": (label_phase(trainer), "extract"),
        "iteration": (trainer, "run_step"),
        "evaluation": (evaluate, "evaluate"),
        "checkpoint": (trainer.checkpoints, "capture"),
    }
    return places[name]


def train(opts: list[Any], resume: bool) -> None:
    """Train to the end."""
    trainer = CrossDomainTrainer(tiny_config(opts))
    trainer.resume_or_load(resume=resume)
    trainer.train()


def train_until_lost(opts: list[Any], place: str, visit: int, rank: int, number: int, note: str) -> None:
    """Process ``rank`` sends itself signal ``number`` before visit ``visit`` of ``place``; ``note`` gets the time."""
    trainer = CrossDomainTrainer(tiny_config(opts))
    owner, name = place_in(trainer, place)
    inner, visits = getattr(owner, name), 0

    def outer(*args: Any, **kwargs: Any) -> Any:
        nonlocal visits
        visits += 1
        if visits == visit and comm.get_rank() == rank:
            Path(note).write_text(str(time.time()))
            os.kill(os.getpid(), number)
        return inner(*args, **kwargs)

    setattr(owner, name, outer)
    trainer.resume_or_load(resume=False)
    trainer.train()
