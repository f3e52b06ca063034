"""``dnreid statistics --data NAME``: count a data set and compare it with what was published."""

from __future__ import annotations

from typing import Annotated

import typer


def statistics(
    data: Annotated[str, typer.Option(help="A registered data set, such as DN348 or SYSUMM01.")],
) -> None:
    """Count a data set and mark what differs from the published numbers.

    Images, identities, cameras, queries and galleries are counted. The data
    set is read from $FASTREID_DATASETS.
    """
    from ..report.statistics import text_of_statistics

    typer.echo(text_of_statistics(data))
