"""What the runs of an item measured: from the store, or by testing their models on another data set."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from ...engine.evaluation_file import FOLDER
from ...runtime.files import write_atomically
from ..power import Grid
from ..store import Run, of_one_code, read_json
from .catalogue import PaperRow
from .plan import TESTS, Choice, RowRuns, folder_of, stored_test

logger = logging.getLogger(__name__)

#: ``{direction: {metric: percent}}`` of a run.
Figures = Mapping[str, Mapping[str, float]]


class Measured:
    """The figures of a row's runs by place and seed.

    Attributes:
        row: its name and published figures.
        keys: of its runs in the store.
    """

    def __init__(self, row: PaperRow, found: Sequence[tuple[int, Run, Figures]]) -> None:
        self.row, self.keys = row, [run.key for _, run, _ in found]
        self._found = found

    def __len__(self) -> int:
        return len(self._found)

    def grid(self, direction: str, metric: str) -> Grid:
        """The values by place."""
        grid: dict[int, list[float]] = {}
        for place, _, figures in self._found:
            grid.setdefault(place, []).append(figures.get(direction, {}).get(metric, np.nan))
        return grid

    def mean(self, direction: str, metric: str) -> float:
        """NaN without a value; over the places of the means of their runs."""
        means = [float(np.mean(values)) for values in self.grid(direction, metric).values()]
        return float(np.mean(means)) if means else np.nan

    def published(self, direction: str, metric: str) -> float:
        """NaN where nothing was published."""
        return self.row.published.get(direction, {}).get(metric, np.nan)


def of_store(rows: Sequence[RowRuns], choice: Choice) -> list[Measured]:
    """What the store has of every row.

    Raises:
        ValueError: the runs are of different code.
    """
    every = [run for row in rows for _, run in row.runs]
    found = of_one_code(every, read_json(choice.store))
    return [
        Measured(
            row.row, [(place, run, found[run.key]["end"]) for place, run in row.runs if run.key in found]
        )
        for row in rows
    ]


def tested(rows: Sequence[RowRuns], choice: Choice) -> list[Measured]:
    """Every model tested on ``choice.test``; what was tested before is not repeated.

    Raises:
        ValueError: a test failed.
    """
    kept, name = read_json(choice.store), choice.test.name
    every = {run.key: run for row in rows for _, run in row.runs}
    todo = [run for key, run in every.items() if stored_test(kept, key, name) is None]
    with ThreadPoolExecutor(max_workers=choice.jobs) as pool:
        for run, figures in zip(todo, pool.map(lambda run: _test(run, choice), todo)):
            kept[run.key].setdefault(TESTS, {})[name] = figures
            text = json.dumps(kept, indent=1, sort_keys=True) + "\n"
            write_atomically(choice.store, partial(_write, text.encode()))
    return [
        Measured(row.row, [(place, run, stored_test(kept, run.key, name) or {}) for place, run in row.runs])
        for row in rows
    ]


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def _test(run: Run, choice: Choice) -> Figures:
    folder, name = folder_of(run, choice.logs), choice.test.name
    assert folder is not None, "a run without its folder is missing"
    command = [sys.executable, "-m", "dnreid_plugins", "eval", str(folder.absolute())]
    command += ["DATASETS.TESTS", f"('{name}',)"]
    env = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")}
    before = _times(folder)
    with (folder / "eval.log").open("a") as log:
        code = subprocess.run(command, env=env, stdout=log, stderr=log, check=False).returncode
    logger.info("%s on %s: %s", folder, name, "done" if code == 0 else f"exit code {code}")
    written = [path for path, time in _times(folder).items() if before.get(path) != time]
    if code or not written:
        raise ValueError(f"{run.row.name} could not be tested on {name}; {folder / 'eval.log'} says why.")
    found: Figures = read_json(written[0])["results"][name]
    return found


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in (folder / FOLDER).glob("*.json")}
