"""A run of a table, and the store of what runs gave.

A run is known by its whole merged config. What it gave is kept with the code and library versions that made it, and
figures of two versions never meet in one table: one changed bit can move a run by 2 mAP.
"""

from __future__ import annotations

import json
from collections import Counter
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
    """What the store has of ``runs``, all of one code: that which made most of them, of several what came last.

    A key that dnreid gets later changes the hash of every config, so what another code made is known by the words that
    asked for it, too; of the present code another hash is another config. A table's caption names the code.

    Raises:
        ValueError: it would leave out what another version of the code or of a library made, or what came last is of
            several and none made all.
    """
    keys = {run.key for run in runs}
    words: dict[tuple[str, ...], str] = {(run.row.folder, *run.opts): run.key for run in runs}
    made: dict[str, dict[str, dict[str, Any]]] = {}
    for place, one in kept.items():
        key, code = place.partition("-")[0], one.get("code", "")
        asked = words.get((one.get("row", ""), *one.get("opts", ())))
        if key in keys:
            made.setdefault(code, {})[key] = one
        elif asked is not None and code != code_version():
            made.setdefault(code, {}).setdefault(asked, one)
    if not made:
        return {}
    last = Counter(kept[key]["code"] for key in keys & kept.keys())
    best = max(made, key=lambda code: (len(made[code]), last[code]))
    if len(made[best]) < (len(runs) if len(last) > 1 else len(set().union(*made.values()))):
        counts = last if len(last) > 1 else {code: len(own) for code, own in made.items()}
        said = "; ".join(f"{counts[code]} of {code}" for code in sorted(counts))
        raise ValueError(
            f"The runs of this table are of different code: {said}; run the table again without "
            "--report-only, and those of another code are repeated."
        )
    return made[best]


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
