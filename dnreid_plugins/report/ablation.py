"""Run the rows of an ablation table and write the Markdown table of their results."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from .forest import forest
from .power import Grid, estimate, variance_parts
from .runs import execute
from .store import Run, collect, of_one_code, unfinished
from .tables import Row, Table

METRICS = ("Rank-1", "mAP")
Entry = dict[str, Any]


class Results:
    """What the store has of a table's runs.

    Raises:
        ValueError: they are of different code.
    """

    def __init__(self, table: Table, runs: Sequence[Run], kept: dict[str, Entry]) -> None:
        found = of_one_code(runs, kept)
        self.table = table
        self.data_seeds = list(dict.fromkeys(run.data_seed for run in runs))
        self.code = next((one["code"] for one in found.values()), "")
        self._of = {(r.row.folder, r.data_seed, r.seed): found[r.key] for r in runs if r.key in found}

    def of(self, row: Row) -> dict[tuple[int, int], Entry]:
        """``{(data seed, run seed): entry}`` of a row."""
        return {(data, seed): one for (name, data, seed), one in self._of.items() if name == row.folder}

    def grid(self, row: Row, direction: str, metric: str, minus: Row | None = None) -> Grid:
        """A metric by rendering; ``minus``: less what another row gives with the same two seeds."""
        found = self.of(row)
        other = (
            {place: {"end": {direction: {metric: 0.0}}} for place in found}
            if minus is None
            else self.of(minus)
        )
        grid: dict[int, list[float]] = {}
        for place in found.keys() & other.keys():
            pair = [one[place]["end"].get(direction, {}).get(metric, np.nan) for one in (found, other)]
            grid.setdefault(place[0], []).append(pair[0] - pair[1])
        return dict(sorted(grid.items()))


def run_table(root: Path, runs: Sequence[Run], logs: Path, store: Path, *, jobs: int) -> None:
    """Run what the store does not have from the present code.

    Raises:
        RuntimeError: some runs failed; all others were run first.
    """
    execute(root, unfinished(runs, store), logs, jobs=jobs)


def mean_and_spread(values: Iterable[float]) -> str:
    """``mean ± standard deviation`` (of the sample) of the finite values; a dash if there are none."""
    finite = np.array([v for v in values if np.isfinite(v)])
    if len(finite) == 0:
        return "–"
    digits = 1 if np.abs(finite).max() > 1 else 2
    spread = f" ± {finite.std(ddof=1):.{digits}f}" if len(finite) > 1 else ""
    return f"{finite.mean():.{digits}f}{spread}"


def mean_and_error(grid: Grid, *, sign: bool = False) -> str:
    """``mean ± standard error`` over renderings; of one rendering `mean_and_spread` of its runs."""
    if len(grid) < 2 and not sign:
        return mean_and_spread(value for values in grid.values() for value in values)
    found = estimate(grid)
    if not np.isfinite(found.mean):
        return "–"
    error = f" ± {found.error:.1f}" if np.isfinite(found.error) else ""
    return f"{found.mean:{'+' if sign else ''}.1f}{error}"


def markdown(results: Results) -> str:
    """The table, ``Rank-1 / mAP`` per direction, differences in mAP, number of runs; its last line says what ± is."""
    table, reference = results.table, results.table.reference()
    lines = [_start_line(results)] if table.start else []
    lines += [_line(results, row, reference) for row in table.rows]
    names = [f"{direction} {'/'.join(METRICS)}" for direction in table.directions]
    differences = [
        f"{direction} mAP − {as_cell(reference.name)}" for direction in table.directions if reference
    ]
    figures = [key.replace("true/", "").replace("_", " ") for key in table.figures]
    heads = ["row", *names, *differences, *figures, "runs", "paper"]
    if not any(row.paper for row in table.rows):
        heads, lines = heads[:-1], [line[:-1] for line in lines]
    text = tabulate(lines, headers=heads, tablefmt="github", disable_numparse=True)
    return f"{text}\n\n{_caption(results)}"


def _line(results: Results, row: Row, reference: Row | None) -> list[str]:
    table, found = results.table, results.of(row)
    cells = [
        " / ".join(mean_and_error(results.grid(row, direction, metric)) for metric in METRICS)
        for direction in table.directions
    ]
    if reference is not None:
        same = row == reference
        grids = [results.grid(row, direction, "mAP", reference) for direction in table.directions]
        cells += ["" if same else mean_and_error(grid, sign=True) for grid in grids]
    figures = [
        mean_and_spread(one["health"][key] for one in found.values() if key in one["health"])
        for key in table.figures
    ]
    return [as_cell(row.name), *cells, *figures, str(len(found)), as_cell(row.paper)]


def as_cell(text: str) -> str:
    """A name as it may stand in a table of markdown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _start_line(results: Results) -> list[str]:
    """Of the first row, one run on each rendering: the start has no other randomness."""
    table = results.table
    starts = {data: one["start"] for (data, _), one in reversed(results.of(table.rows[0]).items())}
    cells = [
        " / ".join(
            mean_and_error(
                {data: [start.get(direction, {}).get(metric, np.nan)] for data, start in starts.items()}
            )
            for metric in METRICS
        )
        for direction in table.directions
    ]
    dashes = ["–" for _ in [*table.figures, *(table.directions if table.difference_to else ())]]
    return ["before training", *cells, *dashes, str(len(starts)), ""]


def _caption(results: Results) -> str:
    seeds = ", ".join(str(seed) for seed in results.data_seeds)
    if len(results.data_seeds) > 1:
        spread = f"Mean ± standard error over the renderings {seeds}"
        spread += "; differences of runs with the same two seeds" if results.table.difference_to else ""
        figures = (
            "; figures of the clusters ± standard deviation of all runs" if results.table.figures else ""
        )
    else:
        spread, figures = f"Mean ± standard deviation of the runs on rendering {seeds}", ""
    return f"*{spread}{figures}. Code: {results.code}.*"


def power_lines(results: Results, *, visible: float = 1.0) -> list[str]:
    """Per row and direction: variances of the difference to the reference, and how many runs show ``visible`` mAP."""
    reference, lines = results.table.reference(), []
    for row in results.table.rows:
        for direction in results.table.directions:
            if reference is None or row == reference:
                continue
            parts = variance_parts(results.grid(row, direction, "mAP", reference))
            renderings, each = parts.budget(visible=visible)
            lines.append(
                f"{row.name} - {reference.name}, {direction} mAP: variance {parts.rendering:.2f} between renderings, "
                f"{parts.run:.2f} between runs; {visible} mAP is two standard errors with {renderings} renderings "
                f"x {each} runs of each row"
            )
    return lines


def write_table(table: Table, runs: Sequence[Run], logs: Path, store: Path, *, readme: bool = True) -> str:
    """Collect what is finished and put the table between its markers in its README; returns it.

    Raises:
        ValueError: there are none, or they are of different code; nothing is written but the store.
    """
    results = Results(table, runs, collect(runs, logs, store))
    if not results.code:
        raise ValueError(
            f"{store} has no run of this table on renderings {results.data_seeds}; leave out --report-only."
        )
    text = markdown(results)
    if readme:
        _replace(table, text + _picture(results))
    return text


def _picture(results: Results) -> str:
    """Draws the table's forest plot, if it has one; the line that shows it."""
    table, reference = results.table, results.table.reference()
    if table.picture is None or reference is None:
        return ""
    differences = {
        row.name: {
            direction: results.grid(row, direction, "mAP", reference) for direction in table.directions
        }
        for row in table.rows
        if row != reference and results.of(row)
    }
    if not differences:
        return ""
    table.picture.write_bytes(forest(differences, reference.name))
    path = os.path.relpath(table.picture, table.readme.parent)
    meaning = "diamonds: mean and standard error; dots: pairs of runs with the same two seeds"
    return f"\n\n![mAP of each row less that of {reference.name}]({path})\n\n*{meaning}*"


def _replace(table: Table, text: str) -> None:
    readme = table.readme
    begin, end = f"<!-- table {table.marker} begin -->", f"<!-- table {table.marker} end -->"
    content = readme.read_text() if readme.is_file() else f"# {readme.parent.name}\n"
    block = f"{begin}\n{text}\n{end}"
    if begin in content:
        head, rest = content.split(begin, 1)
        content = head + block + rest.split(end, 1)[1]
    else:
        content += f"\n### {table.title}\n\n{block}\n"
    readme.write_text(content)
