"""``dnreid train`` and ``dnreid demo``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from .loading import load
from .options import Day, Night, Table
from .words import KEY_VALUE as CONTEXT
from .words import pairs_only

__all__ = ["CONTEXT", "LOADS_ITSELF", "demo", "train"]

LOADS_ITSELF = True
#: Title of the options that keep its command lines working.
FASTREID = "As in fast-reid"


def train(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SYSTEM|CONFIG [KEY VALUE]...",
            help="A system (cia), a shipped config (cia/dn348) or a config file; then keys of the config.",
        ),
    ] = None,
    data: Annotated[
        str, typer.Option(help="A data set that the system has a config for, such as dn348.")
    ] = "",
    day: Day = "",
    night: Night = "",
    csv: Table = "",
    out: Annotated[str, typer.Option(help="Folder of the run (OUTPUT_DIR).")] = "",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Number of epochs; the schedule is scaled to it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in its folder.")] = False,
    gpus: Annotated[int, typer.Option("--gpus", "--num-gpus", min=0, help="Processes, one per GPU.")] = 1,
    config_file: Annotated[
        str, typer.Option(rich_help_panel=FASTREID, help="The config; all words are pairs.")
    ] = "",
    eval_only: Annotated[
        bool,
        typer.Option("--eval-only", rich_help_panel=FASTREID, help="Evaluate MODEL.WEIGHTS; see also eval."),
    ] = False,
    num_machines: Annotated[int, typer.Option(rich_help_panel=FASTREID, help="Number of machines.")] = 1,
    machine_rank: Annotated[int, typer.Option(rich_help_panel=FASTREID, help="Which of them this is.")] = 0,
    dist_url: Annotated[str, typer.Option(rich_help_panel=FASTREID, help="Where the processes meet.")] = "",
) -> None:
    """Train a system, on a known data set or on your own images.

    dnreid train cia --data dn348

    dnreid train cia --day mycrops/day --night mycrops/night --out runs/first
    """
    from .choice import OwnImages, chosen

    named, *pairs = [config_file, *(words or [])] if config_file or not words else words
    opts = pairs_only(pairs)
    config, settings = chosen(named, data, OwnImages(day, night, csv), epochs)
    settings += ["OUTPUT_DIR", out] if out else []
    flags = [flag for flag, given in (("--resume", resume), ("--eval-only", eval_only)) if given]
    flags += ["--num-gpus", str(gpus), "--num-machines", str(num_machines)]
    flags += ["--machine-rank", str(machine_rank), *(["--dist-url", dist_url] if dist_url else [])]
    load()
    from .. import cli

    cli.main(["--config-file", str(Path(config)), *flags, *settings, *opts])


def demo(
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY VALUE]...", help="Keys of the config.")
    ] = None,
) -> None:
    """Train on the embedded rendered data set, evaluate before and after; about two minutes on two cores."""
    opts = pairs_only(pairs)
    # Small convolutions run fastest on one thread; torch reads this when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    load()
    from .. import cli
    from ..runtime.shipped import config_path

    cli.main(["--config-file", str(config_path("DNMini/demo")), *opts])
