"""One page about several runs: their results, what differs in their configs, their curves over each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...data.digest import short_path
from ...runtime.files import write_atomically
from .curves import Curve, keys_of, metric_lines, overlaid
from .curves import draw as draw_lines
from .folder import RunFolder, read_run
from .page import check_writable
from .pictures import chart, svg
from .render import render
from .results_table import SetResults, results_of
from .settings import differing


class Compared(NamedTuple):
    """One test set: the results of the runs that were scored on the same images by the same protocol.

    ``rows`` are ``(run, direction, {metric: percent})``; ``left_out`` says which runs are not compared, and why.
    """

    name: str
    protocol: str
    columns: list[str]
    rows: list[tuple[str, str, dict[str, float]]]
    best: dict[tuple[str, str], float]
    left_out: list[str]
    runs: list[str]


class Scatter(NamedTuple):
    """AP of the same queries in two runs."""

    curve: Curve
    sentence: str


def write_comparison(folders: Sequence[str | Path], out: Path) -> Path:
    """Write a page that compares runs; only their files are read, neither weights nor images.

    A run that was scored on other images or by another protocol than the first is not compared with it, and the page
    says so.

    Raises:
        ValueError: a folder is no run, one is named twice, or no two runs can be compared.
        OSError: the page cannot be written.
    """
    if len({Path(folder).resolve() for folder in folders}) < len(folders):
        raise ValueError("The same run is named twice; name different ones.")
    check_writable(out)
    runs = [read_run(folder) for folder in folders]
    names = short_names([run.folder for run in runs])
    sets = compared_sets(runs, names)
    if not any(len(one.runs) > 1 for one in sets):
        why = (
            " ".join(text for one in sets for text in one.left_out)
            or "They have no scored test set in common."
        )
        raise ValueError(f"These runs cannot be compared: {why}")
    notes = [f"{name}: {note}" for run, name in zip(runs, names) for note in run.missing]
    text = render(
        "comparison.html",
        names=names,
        runs=runs,
        sets=sets,
        differing=differing(runs),
        curves=_curves(runs, names, sets),
        scatters=_scatters(runs, names, sets, notes),
        notes=notes,
    )
    write_atomically(out, lambda file: file.write(text))
    return out


def short_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that are different ones."""
    parts = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-length:]) for one in parts]
        if len(set(names)) == len(names):
            break
    return names


def compared_sets(runs: Sequence[RunFolder], names: Sequence[str]) -> list[Compared]:
    """The results of every set that the first run, or else a later one, was scored on."""
    by_set: dict[str, list[tuple[RunFolder, str, SetResults]]] = {}
    for run, name in zip(runs, names):
        for found in results_of(run):
            by_set.setdefault(found.name, []).append((run, name, found))
    return [_compared(name, scored) for name, scored in by_set.items()]


def _compared(dataset: str, scored: list[tuple[RunFolder, str, SetResults]]) -> Compared:
    first, first_name, base = scored[0]
    rows: list[tuple[str, str, dict[str, float]]] = []
    left_out, taken = [], []
    for run, name, found in scored:
        why = _not_comparable(first, run, dataset, base.protocol, found.protocol)
        if why:
            left_out.append(f"{name} is not compared with {first_name} on {dataset}: {why}.")
            continue
        taken.append(name)
        rows += [(name, row.direction, row.after) for row in found.rows]
    order = list(dict.fromkeys(direction for _, direction, _ in rows))
    rows.sort(key=lambda row: order.index(row[1]))
    best: dict[tuple[str, str], float] = {}
    for _, direction, figures in rows:
        for metric, value in figures.items():
            best[direction, metric] = max(value, best.get((direction, metric), -math.inf))
    return Compared(dataset, base.protocol, base.columns, rows, best, left_out, taken)


def _not_comparable(first: RunFolder, other: RunFolder, dataset: str, *protocols: str) -> str:
    """Why the results of two runs on a set must not stand in one table; "" if they may."""
    data = [run.results.get("data", {}).get(dataset) for run in (first, other)]
    if data[0] != data[1]:
        return f"it was scored on other images ({data[1]}, not {data[0]})"
    if protocols[0] != protocols[1] and all(protocols):
        return f"it was scored by another protocol ({protocols[1]})"
    for key in ("METRIC", "RERANK", "AQE", "FLIP"):
        values = [str(run.cfg.TEST[key]).replace("\n", ", ") for run in (first, other)]
        if values[0] != values[1]:
            return f"its TEST.{key} is another one ({values[1]}, not {values[0]})"
    return ""


def _curves(runs: Sequence[RunFolder], names: Sequence[str], sets: Sequence[Compared]) -> list[Curve]:
    found = []
    for one in sets:
        own = [(run, name) for run, name in zip(runs, names) if name in one.runs]
        for direction in dict.fromkeys(row[1] for row in one.rows):
            lines = {name: metric_lines(run, one.name, "mAP").get(direction, ([], [])) for run, name in own}
            if sum(len(xs) > 1 for xs, _ in lines.values()) > 1:
                found.append(draw_lines(f"{one.name}: mAP {direction}, %", lines, "iteration"))
    losses = [
        key for key in keys_of(row for run in runs for row in run.metrics) if "loss" in key and "/" not in key
    ]
    found += overlaid([(name, run.metrics) for run, name in zip(runs, names)], "iteration", losses)
    wanted = ("/clusters", "/clustered", "/ARI", "/pairs", "/matching_precision")
    keys = [key for key in keys_of(row for run in runs for row in run.health) if key.endswith(wanted)]
    return found + overlaid([(name, run.health) for run, name in zip(runs, names)], "epoch", keys)


def _scatters(
    runs: Sequence[RunFolder], names: Sequence[str], sets: Sequence[Compared], notes: list[str]
) -> list[Scatter]:
    """The AP of every query, of the first run against each other one that may be compared with it."""
    found = []
    for one in sets:
        own = [(run, name) for run, name in zip(runs, names) if name in one.runs]
        for run, name in own if len(own) > 1 else ():
            if not run.queries:
                notes.append(
                    f"{name}: no queries.csv, so its queries are not shown; `dnreid report` makes it."
                )
        having = [(run, name) for run, name in own if run.queries]
        for other in having[1:]:
            found += _scatter(one.name, having[0], other)
    return found


def _scatter(dataset: str, first: tuple[RunFolder, str], other: tuple[RunFolder, str]) -> list[Scatter]:
    tables = []
    for run, _ in (first, other):
        rows = [row for row in run.queries if row.dataset == dataset and math.isfinite(row.ap)]
        tables.append({(row.direction, short_path(row.path)): row.ap for row in rows})
    found = []
    for direction in dict.fromkeys(key[0] for key in tables[0]):
        keys = [key for key in tables[0] if key[0] == direction and key in tables[1]]
        if not keys:
            continue
        x, y = (np.array([table[key] for key in keys]) for table in tables)
        figure, axes = chart(3.8, 3.6)
        axes.scatter(x, y, s=8, c="#2f5bb7", alpha=0.35, lw=0, rasterized=True)
        axes.plot([0, 100], [0, 100], color="#9ca3af", lw=1)
        axes.set(xlabel="AP of the first, %", ylabel="AP of the second, %", xlim=(-2, 102), ylim=(-2, 102))
        better, worse = int((y > x).sum()), int((y < x).sum())
        sentence = (
            f"{other[1]} has the higher AP for {better} of {len(keys)} queries, {first[1]} for {worse}; "
            f"mean difference {float((y - x).mean()):+.2f}."
        )
        title = f"{dataset} {direction}: {first[1]} (first) and {other[1]} (second)"
        found.append(Scatter(Curve(title, svg(figure), f"{title}. {sentence}"), sentence))
    return found
