"""The runs behind a table: which there must be, and how they are run."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any

import yaml
from fastreid.config import CfgNode, get_cfg

from ..engine.identity import config_hash
from ..engine.stages import STAGE_REGISTRY
from ..runtime.config_files import known_keys, merge_with_suggestions
from ..runtime.run_folder import STAGE_FILES
from ..runtime.shipped import find_config
from .store import Run, read_json
from .tables import Row, Table

logger = logging.getLogger(__name__)

#: What a plan sets for each of its runs.
OWN_KEYS = ("SEED", "DATASETS.DNMINI_SEED", "OUTPUT_DIR")
# glibc: keep freed memory instead of giving it back after every step; no effect elsewhere.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


def plan(
    root: Path,
    table: Table,
    *,
    data_seeds: Sequence[int],
    seeds: Sequence[int],
    overrides: Sequence[str] = (),
) -> list[Run]:
    """All runs of a table, ordered so that every row has its first run early.

    Args:
        root: the folder that the rows' configs are relative to.
        table: what it sets comes in this order: a row's config, the protocol's changes (see `protocol_changes`), the
            row's overrides, then ``overrides``.
        data_seeds: of the renderings, ``DATASETS.DNMINI_SEED``.
        seeds: ``SEED`` of the runs on each rendering.
        overrides: ``KEY VALUE`` words for all rows.

    Raises:
        ValueError: an override sets what the plan sets.
    """
    taken = next((key for key in OWN_KEYS if key in overrides[::2]), None)
    if taken is not None:
        raise ValueError(
            f"{taken} is set for each run by the table; use --seeds, --data-seeds or --logs instead."
        )
    rows = []
    for row in table.rows:
        opts: list[str] = []
        if table.protocol:
            opts = protocol_changes(merged(root / row.config, ()), find_config(table.protocol), row.name)
        rows.append((row, [*opts, *row.overrides, *overrides]))
    return [
        _run_of(root, row, opts, data_seed, seed)
        for seed in seeds
        for data_seed in data_seeds
        for row, opts in rows
    ]


def _run_of(root: Path, row: Row, opts: Sequence[str], data_seed: int, seed: int) -> Run:
    words = [*opts, "DATASETS.DNMINI_SEED", str(data_seed), "SEED", str(seed)]
    cfg = merged(root / row.config, words)
    return Run(row, data_seed, seed, tuple(words), config_hash(cfg), cfg.DATASETS.TESTS[0])


def merged(config: Path, opts: Sequence[str]) -> CfgNode:
    """The config of a file with ``KEY VALUE`` words."""
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(config), list(opts))
    return cfg


def protocol_changes(cfg: CfgNode, protocol: Path, name: str = "") -> list[str]:
    """What a config file sets over its base, as ``KEY VALUE`` words, where ``cfg`` has the base's value.

    A row that chose another value than the base keeps it: a system with its own encoder or schedule is measured with
    them on the protocol's data.

    Raises:
        ValueError: the file has no base.
    """
    content = yaml.safe_load(protocol.read_text())
    if "_BASE_" not in content:
        raise ValueError(
            f"{protocol} has no _BASE_, so there is nothing that it changes; name a config with a base."
        )
    base = merged(protocol.parent / content.pop("_BASE_"), ())
    wanted = merged(protocol, ())
    words: list[str] = []
    for key in known_keys(base):
        old, new, own = (_value(node, key) for node in (base, wanted, cfg))
        if old == new or key == "OUTPUT_DIR":
            continue
        if own == old:
            words += [key, str(new)]
        elif own != new:
            logger.info("%s keeps its own %s %s; %s has %s.", name, key, own, protocol.stem, new)
    return words


def _value(cfg: CfgNode, key: str) -> Any:
    value: Any = cfg
    for part in key.split("."):
        value = value[part]
    return tuple(value) if isinstance(value, list) else value


def execute(root: Path, runs: Sequence[Run], logs: Path, *, jobs: int, gpus: Sequence[str] = ()) -> None:
    """Run ``runs``, ``jobs`` at a time with one thread each; what is finished is skipped, what was cut is resumed.

    ``gpus``: their names for ``CUDA_VISIBLE_DEVICES``; the jobs share them evenly, one for each job.

    Raises:
        RuntimeError: some runs failed; all others were run first.
    """
    free: Queue[str] = Queue()
    for number in range(jobs if gpus else 0):
        free.put(gpus[number % len(gpus)])
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        codes = list(pool.map(lambda run: _execute(root, run, runs, logs, free if gpus else None), runs))
    failed = [
        f"{run.row.name} data {run.data_seed} seed {run.seed}"
        for run, code in zip(runs, codes, strict=True)
        if code
    ]
    if failed:
        raise RuntimeError(
            f"{len(failed)} runs failed: {', '.join(failed[:5])}; see run.log in their folders."
        )


@contextmanager
def _one_gpu(free: Queue[str] | None) -> Iterator[dict[str, str]]:
    """The environment that shows a job one of the free GPUs; nothing without GPUs to share."""
    if free is None:
        yield {}
        return
    gpu = free.get()
    try:
        yield {"CUDA_VISIBLE_DEVICES": gpu}
    finally:
        free.put(gpu)


def _execute(root: Path, run: Run, runs: Sequence[Run], logs: Path, free: Queue[str] | None = None) -> int:
    folder = run.folder(logs)
    if read_json(folder / "results.json").get("finished"):
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "dnreid_plugins", "train", "--config-file", run.row.config, "--resume"]
    # A table needs figures only; `dnreid report` makes the page of any run later.
    command += ["REPORT.ENABLED", "False", *run.opts, "OUTPUT_DIR", str(folder), *_reused(run, runs, logs)]
    # Small convolutions run fastest on one thread, so two runs at a time are faster than one run with two threads.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    threads |= KEEP_MEMORY
    with (folder / "run.log").open("a") as log, _one_gpu(free) as gpu:
        env = {**os.environ, **threads, **gpu}
        code = subprocess.run(command, cwd=root, env=env, stdout=log, stderr=log, check=False).returncode
    logger.info("%s: %s", folder, "done" if code == 0 else f"exit code {code}")
    return code


def _reused(run: Run, runs: Sequence[Run], logs: Path) -> list[str]:
    """Overrides that reuse the stages of the row ``reuse``, if they are finished."""
    wanted = (Row("", run.row.reuse).folder, run.data_seed, run.seed)
    sources = [one.folder(logs) for one in runs if (one.row.folder, one.data_seed, one.seed) == wanted]
    if not run.row.reuse or not sources or any(run.folder(logs).glob(STAGE_FILES)):
        return []
    if not read_json(sources[0] / "results.json").get("finished"):
        return []
    stages = [stage for stage in STAGE_REGISTRY._obj_map.values() if (sources[0] / stage.file_name).is_file()]
    return [word for stage in stages for word in (stage.reuse_key, str(sources[0] / stage.file_name))]
