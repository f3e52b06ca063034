"""Tables: what was published, what our runs gave, the difference and the spread."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from tabulate import tabulate

from ..ablation import as_cell, mean_and_error, mean_and_spread
from .catalogue import Item
from .figures_of_runs import Measured
from .plan import Choice


def table_of(item: Item, found: Sequence[Measured], choice: Choice) -> str:
    """A line for each row and direction, then what the numbers are and how far the orders of the rows agree."""
    lines = [
        _line(item, one, direction, choice)
        for one in found
        for direction in item.directions
        if _shown(one, direction)
    ]
    heads = [word for metric in item.metrics for word in (f"{metric} paper", "ours", "difference")]
    text = tabulate(lines, ["row", "direction", *heads, "runs"], tablefmt="github", disable_numparse=True)
    return "\n\n".join([text, _spread(choice), *orders(item, found)])


def _shown(one: Measured, direction: str) -> bool:
    return bool(one.row.config) or direction in one.row.published


def _line(item: Item, one: Measured, direction: str, choice: Choice) -> list[str]:
    cells: list[str] = []
    for metric in item.metrics:
        published, mean = one.published(direction, metric), one.mean(direction, metric)
        cells += [
            f"{published:.2f}" if np.isfinite(published) else "–",
            ours(one, direction, metric, choice),
            f"{mean - published:+.1f}" if np.isfinite(mean - published) else "–",
        ]
    return [as_cell(one.row.name), direction, *cells, str(len(one)) if one.row.config else one.row.why]


def ours(one: Measured, direction: str, metric: str, choice: Choice) -> str:
    """``mean ± spread``: over renderings the standard error, else the standard deviation of the runs."""
    grid = one.grid(direction, metric)
    if choice.trials is not None:
        return mean_and_spread(value for values in grid.values() for value in values)
    return mean_and_error(grid)


def _spread(choice: Choice) -> str:
    seeds = ", ".join(map(str, choice.seeds))
    if choice.trials is not None:
        return (
            f"Mean ± standard deviation over the {choice.trials[1]} trials, a model each; run seeds {seeds}."
        )
    if len(choice.data_seeds) > 1:
        renderings = ", ".join(map(str, choice.data_seeds))
        return f"Mean ± standard error over the renderings {renderings}; run seeds {seeds}."
    what = f"Mean ± standard deviation of the runs with the seeds {seeds}" if len(choice.seeds) > 1 else ""
    return f"{what or f'One run of each row, seed {seeds}, so no spread is known'}."


def orders(item: Item, found: Sequence[Measured]) -> Iterator[str]:
    """How far the rows stand in the order of the paper, where three or more have both numbers."""
    from scipy.stats import kendalltau

    told = []
    for direction in item.directions:
        for metric in (item.metrics[0], item.metrics[-1]):
            pairs = np.array(
                [(one.published(direction, metric), one.mean(direction, metric)) for one in found]
            )
            pairs = pairs[np.isfinite(pairs).all(axis=1)] if len(pairs) else pairs
            if len(pairs) > 2 and np.ptp(pairs, axis=0).all():
                told.append(f"{direction} {metric} {kendalltau(*pairs.T).statistic:+.2f}")
    if told:
        yield f"Order of the rows, ours against the paper's (Kendall's τ, 1 = the same): {', '.join(told)}."
