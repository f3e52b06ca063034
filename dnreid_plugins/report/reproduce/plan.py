"""The runs behind an item: which there must be, which are there, what the others cost, and how they are made."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastreid.config import CfgNode
from fastreid.data.datasets import DATASET_REGISTRY

from ...data.digest import short_hash
from ...data.errors import DataError
from ...engine.identity import code_version
from ...runtime.progress import duration
from ...runtime.shipped import home
from ..runs import execute, merged, plan
from ..store import Run, collect, read_json, unfinished
from ..tables import Row, Table
from ..trials import failures, visible_gpus
from .catalogue import OF_WEIGHTS, SETS, DataSet, Item, PaperRow

logger = logging.getLogger(__name__)

RUNS = "runs.json"
#: Under this key an entry of a run has its figures on other sets.
TESTS = "tests"
#: Built by fast-reid without any weights of ours: the user names a file.
OF_IMAGENET = "build_resnet_backbone"
OF_CLIP = "build_clip_vit_backbone"


@dataclass(frozen=True)
class Choice:
    """What is asked for.

    Attributes:
        data: the set that is trained on.
        test: the set that zero-shot items test on.
        seeds, data_seeds: of the runs and, of a rendered set, of the renderings.
        out: folder of the pages, ``runs.json`` with the figures of every run among them.
        logs: folder of the runs.
        jobs: runs at the same time.
        weights, clip: files of ImageNet weights and of CLIP's, for the rows that begin with them.
        overrides: ``KEY VALUE`` words for all rows.
    """

    data: DataSet
    test: DataSet
    seeds: tuple[int, ...] = (0,)
    data_seeds: tuple[int, ...] = (0,)
    out: Path = Path("docs/results")
    logs: Path = Path("logs/reproduce")
    jobs: int = 1
    weights: str = ""
    clip: str = ""
    overrides: tuple[str, ...] = ()

    @property
    def store(self) -> Path:
        return self.out / RUNS

    @property
    def trials(self) -> tuple[str, int] | None:
        """Key and number of the splits that the field reports the mean of."""
        found: tuple[str, int] | None = getattr(DATASET_REGISTRY.get(self.data.name), "trials", None)
        return found


@dataclass(frozen=True)
class RowRuns:
    """A row and its runs, each with its place: the trial, else the seed of the rendering."""

    row: PaperRow
    runs: tuple[tuple[int, Run], ...] = ()


def runs_of(item: Item, choice: Choice) -> list[RowRuns]:
    """Every row of an item; one without a config has no runs."""
    tested = choice.test if item.kind == "zero-shot" else None
    return [_runs_of_row(row, choice) for row in item.rows(choice.data, tested)]


def _runs_of_row(paper: PaperRow, choice: Choice) -> RowRuns:
    if not paper.config:
        return RowRuns(paper)
    row = Row(paper.name, paper.config, paper.overrides)
    table = Table("", "", (row,), Path(), Path(), protocol=choice.data.protocol)
    common = list(choice.overrides)
    cfg = merged_row(paper.config, (*paper.overrides, *common))
    if choice.weights and needs_weights(cfg):
        common += ["MODEL.BACKBONE.PRETRAIN_PATH", choice.weights]
    if choice.clip and not choice.data.rendered and cfg.MODEL.BACKBONE.NAME == OF_CLIP:
        common += ["MODEL.BACKBONE.CLIP.PRETRAINED", choice.clip]
    found: list[tuple[int, Run]] = []
    trials = choice.trials
    if trials is None:
        runs = plan(home(), table, data_seeds=choice.data_seeds, seeds=choice.seeds, overrides=common)
        return RowRuns(paper, tuple((run.data_seed, run) for run in runs))
    for number in range(1, trials[1] + 1):
        words = [*common, trials[0], str(number)]
        found += [
            (number, run) for run in plan(home(), table, data_seeds=[0], seeds=choice.seeds, overrides=words)
        ]
    return RowRuns(paper, tuple(found))


def merged_row(config: str, opts: tuple[str, ...]) -> CfgNode:
    """The merged config of a row; not to be changed."""
    return _merged(home() / config, opts)


_merged = lru_cache(maxsize=512)(merged)


def needs_weights(cfg: CfgNode) -> bool:
    """Whether the user must name the file of its start."""
    backbone = cfg.MODEL.BACKBONE
    return bool(backbone.NAME == OF_IMAGENET and backbone.PRETRAIN and not backbone.PRETRAIN_PATH)


def missing(item: Item, rows: Sequence[RowRuns], choice: Choice) -> list[Run]:
    """The runs of an item that must still be made, each once."""
    runs = [run for row in rows for _, run in row.runs]
    lost = unfinished(runs, choice.store)
    if item.kind in OF_WEIGHTS:
        kept = read_json(choice.store)
        there = {run.key for run in runs} - {run.key for run in lost}
        if item.kind == "zero-shot":
            there = {key for key in there if stored_test(kept, key, choice.test.name) is None}
        lost += [run for run in runs if run.key in there and folder_of(run, choice.logs) is None]
    return list({run.key: run for run in lost}.values())


def stored_test(kept: Mapping[str, Any], key: str, name: str) -> dict[str, dict[str, float]] | None:
    """The figures of a stored run on another set; None if it was not tested there."""
    found: dict[str, dict[str, float]] | None = kept.get(key, {}).get(TESTS, {}).get(name)
    return found


def folder_of(run: Run, logs: Path) -> Path | None:
    """The folder of a finished run of this config and code with its weights, whatever row it was made for."""
    for folder in sorted(logs.glob(f"*/*-{run.key}-{short_hash(code_version())}")):
        if read_json(folder / "results.json").get("finished") and (folder / "model_final.pth").is_file():
            return folder
    return None


def train(runs: Sequence[Run], choice: Choice) -> None:
    """Make ``runs``, and keep what they gave.

    Raises:
        ValueError: some failed; the others are kept.
    """
    logs = choice.logs.absolute()
    on_gpu = any(_device(run).startswith("cuda") for run in runs)
    try:
        execute(Path.cwd(), runs, logs, jobs=choice.jobs, gpus=visible_gpus() if on_gpu else [])
    except RuntimeError:
        raise ValueError(failures(runs, logs)) from None
    finally:
        collect(runs, logs, choice.store)


def _device(run: Run) -> str:
    return str(merged_row(run.row.config, run.opts).MODEL.DEVICE)


def check(plans: Sequence[tuple[Item, Sequence[RowRuns]]], choice: Choice) -> None:
    """Refuse what cannot be trained, before the first run.

    Raises:
        ValueError: a data set is not there, or the weights of a start, or a folder cannot be written.
        OSError: a folder cannot be made.
    """
    for option, path in (("--weights", choice.weights), ("--clip", choice.clip)):
        if path and not Path(path).is_file():
            raise ValueError(f"{option} is {path!r}, which is no file; correct the path.")
    kinds = {item.kind for item, _ in plans}
    if kinds - {"cost"}:
        look_for(choice.data.name)
    if "zero-shot" in kinds:
        look_for(choice.test.name)
    for item, rows in plans:
        for run in missing(item, rows, choice):
            if needs_weights(merged_row(run.row.config, run.opts)):
                raise ValueError(
                    f"{run.row.name} of {item.id} begins with a ResNet-50 trained on ImageNet; name its file by "
                    "--weights resnet50.pth."
                )
    for folder in (choice.out, choice.logs):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise ValueError(f"{folder} cannot be written; choose another folder by --out and --logs.")


def look_for(name: str) -> None:
    """
    Raises:
        ValueError: the set is not where data sets are.
    """
    if SETS[name].rendered:
        return
    try:
        DATASET_REGISTRY.get(name)()
    except DataError as error:
        raise ValueError(f"{error}; docs/datasets.md says where {name} comes from.") from None


def cost(runs: Sequence[Run], choice: Choice) -> str:
    """What is still to be trained, in words: minutes where such runs were measured, else images."""
    if not runs:
        return "nothing"
    kept: dict[str, Any] = read_json(choice.store)
    text = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    tests = {run.dataset for run in runs}
    seconds = [
        one["seconds"] for one in kept.values() if one.get("seconds") and tests & set(one.get("data", ()))
    ]
    if seconds:
        return f"{text}, about {duration(len(runs) * sum(seconds) / len(seconds) / choice.jobs)}"
    images = sum(_images(merged_row(run.row.config, run.opts)) for run in runs)
    return f"{text}, {images:,} images" if images else text


def _images(cfg: CfgNode) -> int:
    return int(cfg.SOLVER.MAX_EPOCH * cfg.DATALOADER.ITERS_PER_EPOCH * cfg.SOLVER.IMS_PER_BATCH)
