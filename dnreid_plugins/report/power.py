"""How sure a mean over several renderings and several runs on each is, and how many runs a difference needs.

The model is nested: figure = mean + part of the rendering + part of the run. What is measured on one rendering shares
its part, so more runs on the same rendering do not make it smaller; only more renderings do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: Figures of the runs by the seed of their rendering.
Grid = Mapping[int, Sequence[float]]
MOST_RUNS_EACH = 20


@dataclass(frozen=True)
class Estimate:
    """``error``: standard error of ``mean``; NaN for a single rendering, which says nothing of others."""

    mean: float
    error: float
    renderings: int
    runs: int


def estimate(grid: Grid) -> Estimate:
    """Mean of the renderings' means. Renderings without a run are left out; without any, mean and error are NaN."""
    means = [float(np.mean(values)) for values in grid.values() if len(values)]
    runs = sum(len(values) for values in grid.values())
    if not means:
        return Estimate(math.nan, math.nan, 0, 0)
    error = float(np.std(means, ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else math.nan
    return Estimate(float(np.mean(means)), error, len(means), runs)


@dataclass(frozen=True)
class VarianceParts:
    """Variance between renderings (of their true means) and between runs on one rendering."""

    rendering: float
    run: float

    def standard_error(self, renderings: int, runs_each: int) -> float:
        """Of a mean over ``renderings`` with ``runs_each`` runs on each."""
        return math.sqrt((self.rendering + self.run / runs_each) / renderings)

    def budget(
        self, *, visible: float = 1.0, errors: float = 2.0, rendering_cost: float = 0.0
    ) -> tuple[int, int]:
        """``(renderings, runs on each)`` of the least cost at which ``visible`` is ``errors`` standard errors.

        ``rendering_cost`` in runs. Never fewer than two renderings, without which there is no standard error.
        """
        plans = []
        for runs_each in range(1, MOST_RUNS_EACH + 1):
            wanted = (self.rendering + self.run / runs_each) * (errors / visible) ** 2
            renderings = max(2, math.ceil(wanted - 1e-9))
            plans.append((renderings * (rendering_cost + runs_each), renderings, runs_each))
        _, renderings, runs_each = min(plans)
        return renderings, runs_each


def variance_parts(grid: Grid) -> VarianceParts:
    """Analysis of variance of a grid with the same number of runs, at least 2, on each of at least 2 renderings.

    A negative estimate of the part between renderings counts as 0.

    Raises:
        ValueError: the grid is smaller or uneven.
    """
    counts = {len(values) for values in grid.values()}
    if len(grid) < 2 or len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            f"The grid has {[len(values) for values in grid.values()]} runs per rendering; variance parts need the "
            "same number, at least 2, on at least 2 renderings."
        )
    values = np.array(list(grid.values()), dtype=float)
    run = float(values.var(axis=1, ddof=1).mean())
    rendering = float(values.mean(axis=1).var(ddof=1)) - run / values.shape[1]
    return VarianceParts(max(0.0, rendering), run)
