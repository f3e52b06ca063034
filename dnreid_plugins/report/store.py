"""A run of a table, and the store of what runs gave.

A run is known by its whole merged config. What it gave is kept with the code and library versions that made it, and
figures of two versions never meet in one table: one changed bit can move a run by 2 mAP.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.digest import short_hash
from ..engine.identity import code_version
from ..runtime.files import write_atomically
from .tables import Row


@dataclass(frozen=True)
class Run:
    """One row on one rendering with one run seed.

    ``key`` names the merged config, the two seeds included; ``opts`` are the ``KEY VALUE`` words that make that config
    of the row's file; ``dataset``: the set whose figures count.
    """

    row: Row
    data_seed: int
    seed: int
    opts: tuple[str, ...]
    key: str
    dataset: str

    def folder(self, logs: Path) -> Path:
        """Runs of another config or another code lie in other folders, so that no resume can mix them."""
        place = f"data{self.data_seed}-seed{self.seed}-{self.key}-{short_hash(code_version())}"
        return logs / self.row.folder / place


def read_json(path: Path) -> dict[str, Any]:
    """The file's content; an empty dict if there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def collect(runs: Sequence[Run], logs: Path, store: Path) -> dict[str, dict[str, Any]]:
    """Add the finished ``runs`` of ``logs`` to the store (committed, so that no run is repeated) and return it.

    Per run, by its key: what it is, the ``code`` that made it, the ``data`` it saw, its ``start`` and ``end`` metrics,
    the figures of its health lines and the ``seconds`` that it took. What another code gave before stays under the key
    and that code, so that its table can be written again when a newer one shares a row.
    """
    kept = read_json(store)
    for run in runs:
        folder = run.folder(logs)
        found = read_json(folder / "results.json")
        if found.get("finished"):
            before = kept.get(run.key, {}).get("code", found["code_version"])
            if before != found["code_version"]:
                kept[f"{run.key}-{short_hash(before)}"] = kept[run.key]
            kept[run.key] = {
                "row": run.row.folder,
                "config": run.row.config,
                "opts": list(run.opts),
                "code": found["code_version"],
                "data": found["data"],
                "end": found[run.dataset],
                "start": found.get("start", {}).get(run.dataset, {}),
                "health": last_health(folder),
                "seconds": _seconds(folder),
            }
    if kept:
        store.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(kept, indent=1, sort_keys=True) + "\n"
        write_atomically(store, lambda file: file.write(text.encode()))
    return kept


def _seconds(folder: Path) -> float | None:
    """How long a finished run took, start and evaluations included; of a resumed one the last part."""
    begun, ended = folder / "config.yaml", folder / "results.json"
    return round(ended.stat().st_mtime - begun.stat().st_mtime, 1) if begun.is_file() else None


def unfinished(runs: Sequence[Run], store: Path) -> list[Run]:
    """The ``runs`` that the store does not have from the present code."""
    kept = read_json(store)
    return [run for run in runs if kept.get(run.key, {}).get("code") != code_version()]


def of_one_code(runs: Sequence[Run], kept: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What the store has of ``runs``: what came last or, if that is of several codes, all that one of them made.

    A key that dnreid gets later changes the hash of every config. If the store knows no run by its hash, those count
    that were asked for by the same words, of the code that made most of them; a table's caption names that code.

    Raises:
        ValueError: what came last is of several versions of the code or of a library, and none made all.
    """
    found = {run.key: kept[run.key] for run in runs if run.key in kept}
    codes = sorted({one["code"] for one in found.values()})
    if len(codes) < 2:
        return found or _of_same_words(runs, kept)
    made = {(place.partition("-")[0], one.get("code")): one for place, one in kept.items()}
    for code in codes:
        if all((run.key, code) in made for run in runs):
            return {run.key: made[run.key, code] for run in runs}
    counts = [f"{sum(one['code'] == code for one in found.values())} of {code}" for code in codes]
    raise ValueError(
        f"The runs of this table are of different code: {'; '.join(counts)}; run the table again without "
        "--report-only, and those of another code are repeated."
    )


def _of_same_words(runs: Sequence[Run], kept: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    by_code: dict[str, dict[tuple[str, ...], dict[str, Any]]] = {}
    for one in kept.values():
        # Of the present code another hash is another config.
        if one["code"] != code_version():
            by_code.setdefault(one["code"], {})[(one["row"], *one["opts"])] = one
    words = {run.key: (run.row.folder, *run.opts) for run in runs}
    found = [{key: made[row] for key, row in words.items() if row in made} for made in by_code.values()]
    return max(found, key=len, default={})


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
