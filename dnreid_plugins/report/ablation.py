"""Run the rows of an ablation table and write the Markdown table of their results."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from tabulate import tabulate

from ..engine.stages import STAGE_REGISTRY
from ..runtime.run_folder import STAGE_FILES

logger = logging.getLogger(__name__)

# glibc: keep freed memory instead of giving it back after every step; no effect elsewhere.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}
DIRECTIONS = ("D2N", "N2D")
METRICS = ("Rank-1", "mAP")


@dataclass(frozen=True)
class Row:
    """One row: its printed name, config below the project folder, overrides and the paper's figures.

    ``reuse``: another row of the table, given as its config, whose finished stages of the same seed are taken where
    they are there already. A stage being the same computation, the row's result does not depend on that.
    """

    name: str
    config: str
    overrides: tuple[str, ...] = ()
    paper: str = ""
    reuse: str = ""

    @property
    def folder(self) -> str:
        """Name of the row's log folder; rows of several tables share it when config and overrides agree."""
        words = [Path(self.config).stem, *self.overrides]
        return re.sub(r"[^A-Za-z0-9.=+-]+", "_", "-".join(words)).lower()


@dataclass(frozen=True)
class Table:
    """One table of ``tables.yml``."""

    name: str
    title: str
    rows: tuple[Row, ...]
    readme: Path
    store: Path
    dataset: str = "DNMini"
    figures: tuple[str, ...] = field(default=())
    directions: tuple[str, ...] = DIRECTIONS
    start: bool = False


def load_table(root: Path, project: str, name: str) -> Table:
    """Read one table of ``projects/<project>/tables.yml`` (or ``configs/<project>/tables.yml``).

    Raises:
        ValueError: no such project or table.
    """
    found = {p.parent.name: p for home in ("configs", "projects") for p in (root / home).glob("*/tables.yml")}
    if project not in found:
        raise ValueError(f"There is no project {project!r} with tables; known: {sorted(found)}.")
    path = found[project]
    tables = yaml.safe_load(path.read_text())
    if name not in tables:
        raise ValueError(f"{path} has no table {name!r}; known tables: {sorted(tables)}.")
    content = tables[name]
    rows = tuple(
        Row(
            row["name"],
            str((path.parent / row["config"]).relative_to(root)),
            tuple(str(word) for word in row.get("overrides", ())),
            str(row.get("paper", "")),
            str(row.get("reuse", "")),
        )
        for row in content["rows"]
    )
    return Table(
        name,
        content["title"],
        rows,
        root / content.get("readme", path.parent.relative_to(root) / "README.md"),
        path.parent / "results.json",
        figures=tuple(content.get("figures", ())),
        directions=tuple(content.get("directions", DIRECTIONS)),
        start=bool(content.get("start", False)),
    )


def run_table(
    root: Path, table: Table, logs: Path, *, seeds: Sequence[int], jobs: int, overrides: Sequence[str] = ()
) -> None:
    """Run all unfinished rows, seed by seed, so that every row has its first seed early.

    Raises:
        RuntimeError: some runs failed; all others were run first.
    """
    kept = read_json(table.store)
    todo = {
        (row.folder, seed): (row, seed)
        for seed in seeds
        for row in table.rows
        if str(seed) not in kept.get(row.folder, {})
    }
    with ThreadPoolExecutor(max_workers=jobs) as pool:
        codes = list(pool.map(lambda job: _run(root, job[0], job[1], logs, overrides), todo.values()))
    failed = [
        f"{row.name} seed {seed}" for (row, seed), code in zip(todo.values(), codes, strict=True) if code
    ]
    if failed:
        raise RuntimeError(
            f"{len(failed)} runs failed: {', '.join(failed[:5])}; see run.log in their folders."
        )


def _run(root: Path, row: Row, seed: int, logs: Path, overrides: Sequence[str]) -> int:
    folder = logs / row.folder / f"seed{seed}"
    if read_run(folder).get("finished"):
        return 0
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "tools/train_net.py", "--config-file", row.config, "--resume"]
    command += ["SEED", str(seed), "OUTPUT_DIR", str(folder)]
    command += [*row.overrides, *_reused(row, seed, logs), *overrides]
    # Small convolutions run fastest on one thread, so two runs at a time are faster than one run with two threads.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    threads |= KEEP_MEMORY
    with (folder / "run.log").open("a") as log:
        code = subprocess.run(
            command, cwd=root, env={**os.environ, **threads}, stdout=log, stderr=log, check=False
        ).returncode
    logger.info("%s seed %d: %s", row.name, seed, "done" if code == 0 else f"exit code {code}")
    return code


def _reused(row: Row, seed: int, logs: Path) -> list[str]:
    """Overrides that reuse the stages of the row ``reuse``, if they are finished."""
    source = logs / Row("", row.reuse).folder / f"seed{seed}"
    if not row.reuse or any((logs / row.folder / f"seed{seed}").glob(STAGE_FILES)):
        return []
    if not read_run(source).get("finished"):
        return []
    stages = [stage for stage in STAGE_REGISTRY._obj_map.values() if (source / stage.file_name).is_file()]
    return [word for stage in stages for word in (stage.reuse_key, str(source / stage.file_name))]


def read_run(folder: Path) -> dict[str, Any]:
    """``results.json`` of a run; an empty dict if there is none."""
    return read_json(folder / "results.json")


def read_json(path: Path) -> dict[str, Any]:
    """The file's content; an empty dict if there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def collect(table: Table, logs: Path, *, seeds: Sequence[int]) -> dict[str, dict[str, Any]]:
    """Add finished runs of ``logs`` to the table's store (committed, so that no run is repeated) and return it.

    Per row folder and seed: ``end`` and ``start`` metrics and the figures of the last epoch's health line.
    """
    kept = read_json(table.store)
    for row in table.rows:
        for seed in seeds:
            folder = logs / row.folder / f"seed{seed}"
            run = read_run(folder)
            if run.get("finished"):
                kept.setdefault(row.folder, {})[str(seed)] = {
                    "end": run[table.dataset],
                    "start": run["start"][table.dataset],
                    "health": last_health(folder),
                }
    if kept:
        table.store.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return kept


def last_health(folder: Path) -> dict[str, float]:
    """The figures of the health lines: each one's last finite value, and under ``mean <figure>`` its mean.

    An empty matching has no precision (null), so the last line may lack a figure that earlier ones have.
    """
    path = folder / "health.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    figures: dict[str, float] = {}
    for key in sorted({key for row in rows for key in row}):
        values = [v for row in rows if (v := row.get(key)) is not None and np.isfinite(v)]
        if values:
            figures |= {key: values[-1], f"mean {key}": float(np.mean(values))}
    return figures


def mean_and_spread(values: Iterable[float]) -> str:
    """``mean ± standard deviation`` (of the sample) of the finite values; a dash if there are none."""
    finite = np.array([v for v in values if np.isfinite(v)])
    if len(finite) == 0:
        return "–"
    digits = 1 if np.abs(finite).max() > 1 else 2
    spread = f" ± {finite.std(ddof=1):.{digits}f}" if len(finite) > 1 else ""
    return f"{finite.mean():.{digits}f}{spread}"


def markdown(table: Table, kept: dict[str, dict[str, Any]], *, seeds: Sequence[int]) -> str:
    """The table with mean ± standard deviation over the finished seeds, ``Rank-1 / mAP`` per direction."""
    lines: list[list[str]] = []
    for row in table.rows:
        found = kept.get(row.folder, {})
        runs = [found[str(seed)] for seed in seeds if str(seed) in found]
        if table.start and not lines:
            starts = [run["start"] for run in runs[:1]]
            lines.append(["before training", *_cells(starts, table), *["–" for _ in table.figures], "1", ""])
        cells = _cells([run["end"] for run in runs], table)
        extra = [
            mean_and_spread(r["health"][key] for r in runs if key in r["health"]) for key in table.figures
        ]
        lines.append([_cell(row.name), *cells, *extra, str(len(runs)), _cell(row.paper)])
    names = [f"{direction} {'/'.join(METRICS)}" for direction in table.directions]
    figures = [key.replace("true/", "").replace("_", " ") for key in table.figures]
    heads = ["row", *names, *figures, "seeds", "paper"]
    if not any(row.paper for row in table.rows):
        heads, lines = heads[:-1], [line[:-1] for line in lines]
    return tabulate(lines, headers=heads, tablefmt="github", disable_numparse=True)


def _cell(text: str) -> str:
    """A name as it may stand in a table of markdown."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _cells(results: list[dict[str, Any]], table: Table) -> list[str]:
    """Per direction ``Rank-1 / mAP``; a dash for a direction that the results do not have."""
    return [
        " / ".join(
            mean_and_spread(result[direction][metric] for result in results if direction in result)
            for metric in METRICS
        )
        for direction in table.directions
    ]


def write_table(table: Table, logs: Path, *, seeds: Sequence[int]) -> str:
    """Put the table between its markers in its README; returns it."""
    text = markdown(table, collect(table, logs, seeds=seeds), seeds=seeds)
    readme = table.readme
    begin, end = f"<!-- table {table.name} begin -->", f"<!-- table {table.name} end -->"
    content = readme.read_text() if readme.is_file() else f"# {readme.parent.name}\n"
    block = f"{begin}\n{text}\n{end}"
    if begin in content:
        head, rest = content.split(begin, 1)
        content = head + block + rest.split(end, 1)[1]
    else:
        content += f"\n### {table.title}\n\n{block}\n"
    readme.write_text(content)
    return text
