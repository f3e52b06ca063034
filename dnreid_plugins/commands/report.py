"""``dnreid report``: a page about one run, or several runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="OUTPUT_DIR of a run, or of several to compare.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="The page; else report.html in the run's folder, or comparison.html here for several."
        ),
    ] = None,
    atlas: Annotated[
        Path | None, typer.Option(help="Also write the images of the maps as a Parquet file (one run).")
    ] = None,
) -> None:
    """Write a self-contained page: results, curves, rank lists, maps, clusters and config of a run.

    Several runs give a page that compares them. Both show only what the folders, weights and images still have.
    """
    from ..report.page import write_comparison, write_report

    if len(runs) > 1 and atlas is not None:
        raise ValueError("--atlas is of one run; name one.")
    if len(runs) > 1:
        path = write_comparison(runs, out or Path("comparison.html"))
    else:
        path = write_report(runs[0], out=out, atlas=atlas)
    typer.echo(str(path))
    if atlas is not None:
        typer.echo(str(atlas))
