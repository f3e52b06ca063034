"""What the folder of a run holds in files, read once."""

from __future__ import annotations

import csv
import json
import logging
import math
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from fastreid.config import CfgNode, get_cfg

from ...engine.cluster_file import NAME as CLUSTERS
from ...evaluation.results import read_results
from ...runtime.config_files import ConfigError, known_keys, merge_with_suggestions, read_config_file

logger = logging.getLogger(__name__)

ENVIRONMENT = "environment.json"
QUERIES = "queries.csv"
REPORT = "report.html"

#: A line of ``metrics.json`` or ``health.jsonl``: finite numbers by name.
Figures = dict[str, float]


class ClusterRow(NamedTuple):
    """A training image in ``clusters.csv``; ``cluster`` and ``partner`` are -1 where there is none."""

    path: str
    domain: str
    cluster: int
    partner: int


class QueryRow(NamedTuple):
    """A query in ``queries.csv``; ``ap`` in percent, NaN without a correct image."""

    dataset: str
    direction: str
    path: str
    ap: float


@dataclass(frozen=True, eq=False)
class RunFolder:
    """The files of a run.

    Attributes:
        folder: as it was given.
        cfg: the whole config of the run.
        results: ``results.json``.
        health, metrics: the lines of ``health.jsonl`` and ``metrics.json``.
        clusters: the rows of ``clusters.csv``; empty for a run without pseudo labels.
        queries: the rows of ``queries.csv``, which a report writes.
        environment: ``environment.json``; empty for a run of an older version.
        missing: a sentence for each file that is missing or damaged.
    """

    folder: Path
    cfg: CfgNode
    results: dict[str, Any]
    health: list[Figures]
    metrics: list[Figures]
    clusters: list[ClusterRow]
    queries: list[QueryRow]
    environment: dict[str, Any]
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last two parts of the folder's path."""
        return "/".join(self.folder.absolute().parts[-2:])

    @property
    def tests(self) -> list[str]:
        """The sets that the config scores."""
        return list(self.cfg.DATASETS.TESTS)

    def weights(self) -> Path | None:
        """The final weights, else those that were saved last; None if there are none."""
        final, pointer = self.folder / "model_final.pth", self.folder / "last_checkpoint"
        if final.is_file():
            return final
        last = self.folder / Path(pointer.read_text().strip()).name if pointer.is_file() else final
        return last if last.is_file() else None


def read_run(folder: str | Path, cfg: CfgNode | None = None) -> RunFolder:
    """Read the files of a run; only ``config.yaml`` must be there.

    Args:
        folder: ``OUTPUT_DIR`` of the run.
        cfg: its config, where that is known.

    Raises:
        ValueError: this is no folder of a run, or its config has values that this version does not take.
    """
    folder, missing = Path(folder), list[str]()
    if cfg is None:
        if not (folder / "config.yaml").is_file():
            raise ValueError(
                f"{folder} has no config.yaml, so it is no folder of a run; name its OUTPUT_DIR."
            )
        cfg = _config(folder / "config.yaml", missing)
    results = read_results(str(folder))
    if not results:
        missing.append("results.json is missing or damaged, so there are no results.")
    elif not results.get("finished", True):
        total = cfg.SOLVER.MAX_EPOCH
        missing.append(f"This run is not finished: epoch {results.get('epochs', 0)} of {total}.")
    clusters = _rows(folder / CLUSTERS, missing)
    queries = _rows(folder / QUERIES, missing)
    return RunFolder(
        folder,
        cfg,
        results,
        _lines(folder / "health.jsonl"),
        _lines(folder / "metrics.json"),
        [ClusterRow(r[0], r[1], int(r[2]), int(r[3]) if r[3] else -1) for r in clusters],
        [QueryRow(r[0], r[1], r[2], float(r[3]) if r[3] else math.nan) for r in queries],
        _environment(folder / ENVIRONMENT),
        missing,
    )


def _config(path: Path, missing: list[str]) -> CfgNode:
    """The config of a run; keys that this version does not know are left out, with a sentence."""
    cfg = get_cfg()
    try:
        merge_with_suggestions(cfg, path)
    except ConfigError:
        content = CfgNode(read_config_file(path))
        known = set(known_keys(cfg))
        lost = [key for key in known_keys(content) if key not in known]
        if not lost:
            raise
        missing.append(
            f"This version does not know these keys of config.yaml, so they are left out: {', '.join(lost)}."
        )
        words: list[str] = []
        for key in known_keys(content):
            value = reduce(lambda node, part: node[part], key.split("."), content)
            words += [key, value if isinstance(value, str) else repr(value)] if key in known else []
        merge_with_suggestions(cfg, opts=words)
    return cfg


def _lines(path: Path) -> list[Figures]:
    """JSON objects, one per line; a line that a kill left unfinished and what is no finite number are left out."""
    found = []
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append({k: float(v) for k, v in row.items() if _finite(v)})
    return found


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _rows(path: Path, missing: list[str]) -> list[list[str]]:
    """The rows of a CSV file without its header; none, with a sentence, if one is damaged."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            header, *rows = csv.reader(file)
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a row has another number of columns than the header")
        for row in rows:
            float(row[2] if path.name == CLUSTERS else row[3] or 0)
    except (OSError, ValueError, csv.Error) as error:
        missing.append(f"{path.name} is damaged ({error}), so what it holds is left out.")
        return []
    return rows


def _environment(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
