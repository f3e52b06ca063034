"""A forest plot: how far each row of a table is from the row that it is compared with, pair by pair of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .page.pictures import GREY, OF_DIRECTION, png, subplots
from .power import Grid, estimate

#: Inches.
WIDTH, LINE, MARGIN = 7.2, 0.36, 0.9


def forest(differences: Mapping[str, Mapping[str, Grid]], reference: str) -> bytes:
    """A PNG file: a line for each row, for each direction the mean difference, its standard error and every pair.

    Args:
        differences: ``{row: {direction: differences of mAP by rendering}}``, drawn from top to bottom.
        reference: what 0 stands for.
    """
    figure, ((axes,),) = subplots(1, 1, WIDTH, LINE * len(differences) + MARGIN)
    axes.axvline(0.0, color=GREY, linewidth=1.0)
    for row, directions in enumerate(differences.values()):
        for place, (direction, grid) in enumerate(directions.items()):
            height = row + 0.26 * (place - (len(directions) - 1) / 2)
            _line(axes, height, grid, OF_DIRECTION.get(direction, GREY), direction if row == 0 else "")
    axes.set(xlabel=f"mAP less that of {reference}", ylim=(len(differences) - 0.5, -0.5))
    axes.set_yticks(range(len(differences)), list(differences))
    axes.grid(visible=False, axis="y")
    axes.legend(frameon=False, fontsize=8, loc="best")
    return png(figure)


def _line(axes: Any, height: float, grid: Grid, colour: str, label: str) -> None:
    every: Sequence[float] = [value for values in grid.values() for value in values]
    found = estimate(grid)
    axes.plot(every, np.full(len(every), height), ls="", marker=".", ms=4, color=colour, alpha=0.45)
    error = found.error if np.isfinite(found.error) else 0.0
    axes.errorbar(
        found.mean, height, xerr=error, fmt="D", ms=4.5, capsize=3, color=colour, label=label or None
    )
