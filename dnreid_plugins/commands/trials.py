"""``dnreid trials CONFIG``: every trial that a protocol asks for, and their mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .words import KEY_VALUE as CONTEXT
from .words import pairs_only

__all__ = ["CONTEXT", "trials"]


def trials(
    config: Annotated[str, typer.Argument(help="A config: its file, or the name of a shipped one.")],
    opts: Annotated[list[str] | None, typer.Argument(help="KEY VALUE pairs for all runs.")] = None,
    trials: Annotated[str, typer.Option(help="Which trials, such as 1-10 or 1,3; all by default.")] = "",
    jobs: Annotated[int, typer.Option(help="Runs at the same time; several GPUs are shared evenly.")] = 1,
    logs: Annotated[Path, typer.Option(help="Folder of the runs and of the summary.")] = Path("logs/trials"),
) -> None:
    """Train and score every trial of a data set; print mean and standard deviation.

    RegDB has ten splits with a model each. SYSU-MM01 and LLCM have ten
    galleries, all scored with one model.

    The same command continues: a finished run is not repeated, one that was
    cut goes on. The summary is a JSON file beside the runs.
    """
    import logging

    from ..report.trials import plan_trials, run_trials, text_of_trials

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    planned = plan_trials(config, pairs_only(opts), numbers=numbers_of(trials))
    typer.echo(text_of_trials(run_trials(planned, logs, jobs=jobs)))
    typer.echo(f"\nWritten to {planned.file(logs)}")


def numbers_of(text: str) -> list[int] | None:
    """``"1-3,7"`` -> 1, 2, 3, 7; None for the empty text.

    Raises:
        ValueError: it is something else.
    """
    found: list[int] = []
    for part in text.split(",") if text.strip() else ():
        first, dash, last = part.strip().partition("-")
        numbers = first.isdecimal() and (last.isdecimal() or not dash)
        if not numbers or int(last or first) < int(first):
            raise ValueError(f"--trials is {text!r}; give numbers such as 1-10 or 1,3.")
        found += range(int(first), int(last or first) + 1)
    return found or None
