"""``dnreid fake-dataset NAME``: a small rendered stand-in in the layout of a real data set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

NAMES = "DN348, DNWild, RegDB, SYSUMM01, LLCM or DayNightFolder"


def fake_dataset(
    name: Annotated[str, typer.Argument(help=f"The data set: {NAMES}.")],
    out: Annotated[
        Path, typer.Option(help="Folder of data sets ($FASTREID_DATASETS) that the stand-in is put into.")
    ] = Path("stand-ins"),
    seed: Annotated[int, typer.Option(help="Seed of the rendered vehicles, 0 or more.")] = 0,
) -> None:
    """Render a small stand-in of a data set, to try any command before the real data is there.

    Folders, lists and file names are those of the real set; the images are
    a few rendered vehicles, and every result on them says so.

    A real set is never written into.
    """
    from ..dnmini.stand_ins import LAYOUTS, write_stand_in
    from ..runtime.shipped import EXAMPLE

    known = {one.lower(): one for one in LAYOUTS}
    name = known.get(name.lower(), name)
    folder = write_stand_in(name, out, seed=seed)
    typer.echo(f"{folder} holds a stand-in of {name}, not the real set. To see how a run goes, on a CPU:\n")
    typer.echo(
        f"  FASTREID_DATASETS={shlex.quote(str(out))} dnreid train {EXAMPLE} DATASETS.NAMES \"('{name}',)\" "
        "DATALOADER.ITERS_PER_EPOCH 0 OUTPUT_DIR logs/stand-in"
    )
