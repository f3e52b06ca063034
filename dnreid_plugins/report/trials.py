"""The trials of a data set whose field reports a mean: ten splits with a model each, or ten galleries of one model."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.config import get_cfg
from fastreid.data.datasets import DATASET_REGISTRY
from tabulate import tabulate

from ..data.digest import short_hash
from ..engine.identity import code_version
from ..evaluation.results import COLUMNS, write_json
from ..runtime.config_files import merge_with_suggestions
from ..runtime.shipped import find_config
from .runs import execute, plan
from .store import Run, read_json
from .tables import Row, Table

logger = logging.getLogger(__name__)

STD = "std/"


@dataclass(frozen=True)
class Trials:
    """Runs of one config.

    Attributes:
        numbers: the trial of each run; empty where one model is scored on all galleries.
        runs: one for each number, or the only one.
        config: the file.
        dataset: whose figures are averaged.
        galleries: that each run is scored on.
        on_gpu: the config asks for a GPU.
    """

    numbers: tuple[int, ...]
    runs: tuple[Run, ...]
    config: Path
    dataset: str
    galleries: int
    on_gpu: bool

    def file(self, logs: Path) -> Path:
        """Where the summary goes: a name for these runs of this code."""
        keys = [*(run.key for run in self.runs), code_version()]
        return logs / f"{Row('', str(self.config)).folder}-{short_hash(repr(keys))}.json"


def plan_trials(
    config: str, overrides: Sequence[str] = (), *, numbers: Sequence[int] | None = None
) -> Trials:
    """The runs that the protocol of a config's data set asks for.

    Args:
        config: a file or the name of a shipped config.
        overrides: ``KEY VALUE`` words for all runs.
        numbers: which trials; None = all.

    Raises:
        ValueError: the set has no trials, or none of these numbers.
    """
    path = find_config(config).resolve()
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(path), list(overrides))
    name = cfg.DATASETS.NAMES[0]
    reader = DATASET_REGISTRY.get(name)
    choice, galleries = getattr(reader, "trials", None), getattr(reader, "galleries", 1)
    if choice is None and galleries == 1:
        raise ValueError(
            f"{name} has one split and one gallery, so there are no trials; train and test it once."
        )
    if choice is None and numbers is not None:
        raise ValueError(
            f"{name} is trained once and scored on {galleries} galleries, which every test does; leave --trials out."
        )
    chosen = _checked(name, choice, numbers) if choice is not None else ()
    rows = [Row(f"trial {number}", str(path), (choice[0], str(number))) for number in chosen]  # type: ignore[index]
    table = Table("trials", name, tuple(rows or [Row(name, str(path))]), Path(), Path())
    runs = plan(
        Path(), table, data_seeds=[cfg.DATASETS.DNMINI_SEED], seeds=[cfg.SEED], overrides=_others(overrides)
    )
    return Trials(
        chosen, tuple(runs), path, runs[0].dataset, galleries, str(cfg.MODEL.DEVICE).startswith("cuda")
    )


def _checked(name: str, choice: tuple[str, int], numbers: Sequence[int] | None) -> tuple[int, ...]:
    wanted = tuple(dict.fromkeys(numbers)) if numbers is not None else tuple(range(1, choice[1] + 1))
    wrong = [number for number in wanted if not 1 <= number <= choice[1]]
    if wrong:
        raise ValueError(f"{name} has the trials 1-{choice[1]}, not {wrong[0]}; correct --trials.")
    return wanted


def _others(overrides: Sequence[str]) -> list[str]:
    """Without the seeds, which the plan sets itself, to the same values."""
    pairs = zip(overrides[::2], overrides[1::2])
    return [word for pair in pairs if pair[0] not in ("SEED", "DATASETS.DNMINI_SEED") for word in pair]


def run_trials(trials: Trials, logs: Path, *, jobs: int) -> dict[str, Any]:
    """Train what is not finished, ``jobs`` runs at a time over all GPUs, then write the summary; returns it.

    Raises:
        ValueError: a run failed; the others are finished and will not be repeated.
    """
    if jobs < 1:
        raise ValueError(f"--jobs is {jobs}; it must be at least 1.")
    logs = logs.absolute()
    gpus = visible_gpus() if trials.on_gpu else []
    try:
        execute(Path.cwd(), trials.runs, logs, jobs=jobs, gpus=gpus)
    except RuntimeError:
        raise ValueError(failures(trials.runs, logs)) from None
    found = summary(trials, logs)
    write_json(trials.file(logs), found)
    return found


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process sees."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in shown.split(",") if name.strip()]
    return names or [str(number) for number in range(torch.cuda.device_count())]


def failures(runs: Sequence[Run], logs: Path) -> str:
    """Which of ``runs`` are not finished, and what the first of them said last."""
    failed = [run for run in runs if not _results(run, logs).get("finished")]
    log = failed[0].folder(logs) / "run.log"
    said = (
        [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        if log.is_file()
        else []
    )
    names = ", ".join(run.row.name for run in failed)
    reason = said[-1].removeprefix("error: ")[:300] if said else "it said nothing"
    return f"{len(failed)} of {len(runs)} runs failed ({names}); the first, in {log}, says: {reason}"


def _results(run: Run, logs: Path) -> dict[str, Any]:
    return read_json(run.folder(logs) / "results.json")


def summary(trials: Trials, logs: Path) -> dict[str, Any]:
    """Mean and standard deviation of the sample of every figure, over splits or over galleries, and each trial's.

    Raises:
        ValueError: a trial was not scored.
    """
    found = [_results(run, logs) for run in trials.runs]
    unscored = [run for run, one in zip(trials.runs, found, strict=True) if not one.get(trials.dataset)]
    if unscored:
        raise ValueError(
            f"{unscored[0].row.name} has no figures of {trials.dataset} in {unscored[0].folder(logs)}."
        )
    tables = [one[trials.dataset] for one in found]
    if trials.numbers:
        mean, std = _over_splits(tables)
    else:
        mean = {d: {k: v for k, v in m.items() if not k.startswith(STD)} for d, m in tables[0].items()}
        std = {
            d: {k.removeprefix(STD): v for k, v in m.items() if k.startswith(STD)}
            for d, m in tables[0].items()
        }
    of_one = f"{trials.galleries} galleries, one model"
    over = f"{len(tables)} trials, a model each" if trials.numbers else of_one
    return {
        "config": str(trials.config),
        "dataset": trials.dataset,
        "protocol": found[0].get("protocol", {}).get(trials.dataset, ""),
        "over": over,
        "code_version": code_version(),
        "mean": mean,
        "std": std,
        "trials": {
            run.row.name: {"folder": str(run.folder(logs)), "results": table}
            for run, table in zip(trials.runs, tables, strict=True)
        },
    }


Figures = dict[str, dict[str, float]]


def _over_splits(tables: Sequence[Figures]) -> tuple[Figures, Figures]:
    mean: Figures = {}
    std: Figures = {}
    for direction, metrics in tables[0].items():
        columns = {key: [table.get(direction, {}).get(key, np.nan) for table in tables] for key in metrics}
        mean[direction] = {key: float(np.mean(values)) for key, values in columns.items()}
        if len(tables) > 1:
            std[direction] = {key: float(np.std(values, ddof=1)) for key, values in columns.items()}
    return mean, std


def text_of_trials(found: Mapping[str, Any]) -> str:
    """The table of a summary: ``mean ± standard deviation`` in percent, a row for each direction."""
    mean, std = found["mean"], found["std"]
    columns = [key for key in COLUMNS if any(key in metrics for metrics in mean.values())]
    rows = [
        [direction, *(_cell(metrics.get(key), std.get(direction, {}).get(key)) for key in columns)]
        for direction, metrics in mean.items()
    ]
    table = tabulate(rows, headers=["direction", *columns], tablefmt="github", disable_numparse=True)
    several = len(found["trials"]) > 1
    rule = f"Protocol{' of the first trial' if several else ''}: {found['protocol'] or found['dataset']}"
    return f"{rule}\nMean ± standard deviation of {found['over']}, in percent:\n\n{table}"


def _cell(mean: float | None, std: float | None) -> str:
    if mean is None:
        return "–"
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"
