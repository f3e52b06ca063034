"""Curves of a run or of several: losses, rates and metrics over the training, labels over the epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from .folder import Figures, RunFolder
from .pictures import COLOURS, DAY, NIGHT, chart, svg

#: Points of a line: where and what.
Line = tuple[list[float], list[float]]
FIXED = {"day": DAY, "night": NIGHT}
#: Which direction of a search has which colour.
DIRECTIONS = {"D2N": DAY, "N2D": NIGHT, "D2D": "#f2c078", "N2N": "#93aee6"}


class Curve(NamedTuple):
    """A chart as a data URI, with its title and a sentence for those who do not see it."""

    title: str
    uri: str
    alt: str


def draw(
    title: str, lines: Mapping[str, Line], x_label: str, *, colours: Mapping[str, str] | None = None
) -> Curve:
    """One chart of several lines; those without a point are left out."""
    colours = colours or {}
    figure, axes = chart()
    rest = iter(COLOURS * (1 + len(lines) // len(COLOURS)))
    told = []
    for name, (xs, ys) in lines.items():
        if not xs:
            continue
        marker = "o" if len(xs) <= 30 else ""
        colour = colours.get(name) or next(rest)
        axes.plot(xs, ys, marker=marker, markersize=3, label=_plain(name), color=colour)
        told.append(f"{name} from {ys[0]:.4g} to {ys[-1]:.4g}")
    axes.set_xlabel(x_label)
    axes.margins(x=0.02)
    axes.locator_params(axis="x", integer=True, nbins=6)
    axes.locator_params(axis="y", nbins=5)
    if len(told) > 1:
        axes.legend(loc="best", handlelength=1.4, frameon=False, fontsize=8)
    return Curve(title, svg(figure), f"{title}: {'; '.join(told)}")


def line_of(rows: Iterable[Figures], key: str, x: str) -> Line:
    """The values of ``key`` over those of ``x``, from the rows that have both."""
    points = [(row[x], row[key]) for row in rows if key in row and x in row]
    return [float(a) for a, _ in points], [float(b) for _, b in points]


def keys_of(rows: Iterable[Figures]) -> list[str]:
    """All names in the rows, in order of appearance."""
    return list(dict.fromkeys(key for row in rows for key in row))


def training_curves(run: RunFolder) -> list[Curve]:
    """Losses, the heads' shares of the gradient and the learning rate over the iterations."""
    keys = keys_of(run.metrics)
    losses = ["total_loss", *(key for key in keys if key.startswith("loss_"))]
    found = [
        draw(key.replace("_", " "), {key: line}, "iteration")
        for key in losses
        if (line := line_of(run.metrics, key, "iteration"))[0]
    ]
    shares = {
        key.removeprefix("audit/loss_").removesuffix("_share"): line_of(run.metrics, key, "iteration")
        for key in keys
        if key.startswith("audit/") and key.endswith("_share")
    }
    if shares:
        found.append(draw("share of the gradient at the features, %", shares, "iteration"))
    rate = line_of(run.metrics, "lr", "iteration")
    return [*found, draw("learning rate", {"lr": rate}, "iteration")] if rate[0] else found


def metric_curves(run: RunFolder) -> list[Curve]:
    """mAP and Rank-1 of every test set over the iterations; nothing without an evaluation in between."""
    found = []
    for name in run.tests:
        for metric in ("mAP", "Rank-1"):
            lines = metric_lines(run, name, metric)
            if any(len(xs) > 2 for xs, _ in lines.values()):
                found.append(draw(f"{name}: {metric}, %", lines, "iteration", colours=DIRECTIONS))
    return found


def metric_lines(run: RunFolder, name: str, metric: str) -> dict[str, Line]:
    """``{direction: line}`` with the value before training as the first point."""
    lines = {}
    for key in keys_of(run.metrics):
        dataset, _, rest = key.partition("/")
        direction, _, last = rest.partition("/")
        if dataset == name and last == metric:
            xs, ys = line_of(run.metrics, key, "iteration")
            before = _value(run.results.get("start"), name, direction, metric)
            lines[direction] = ([0.0, *xs], [before, *ys]) if before is not None else (xs, ys)
    return lines


def _value(results: Any, *keys: str) -> float | None:
    for key in keys:
        results = results.get(key) if isinstance(results, Mapping) else None
    return float(results) if isinstance(results, (int, float)) else None


#: Figures of the labels that are shown first, with their titles.
MAIN = {
    "clusters": "clusters",
    "clustered": "images in a cluster, %",
    "largest": "images of the largest cluster",
    "pairs": "matched pairs",
    "true ARI": "adjusted Rand index",
    "true AMI": "adjusted mutual information",
    "true matching_precision": "correct pairs, %",
}


class LabelCurves(NamedTuple):
    """Charts of the pseudo labels: the main ones, those that compare with true identities, and all others."""

    main: list[Curve]
    true: list[Curve]
    more: list[Curve]


def label_curves(run: RunFolder) -> LabelCurves:
    """A chart for every figure of the health lines, with a line for every part that has it."""
    figures: dict[str, dict[str, Line]] = {}
    for key in keys_of(run.health):
        place, _, figure = key.removeprefix("true/").rpartition("/")
        if place:
            name = f"true {figure}" if key.startswith("true/") else figure
            figures.setdefault(name, {})[place] = line_of(run.health, key, "epoch")
    found = LabelCurves([], [], [])
    for name in [*(key for key in MAIN if key in figures), *(key for key in figures if key not in MAIN)]:
        if not any(xs for xs, _ in figures[name].values()):
            continue
        title = MAIN.get(name, name.removeprefix("true ").replace("_", " "))
        if len(figures[name]) == 1 and next(iter(figures[name])) not in FIXED:
            title = f"{next(iter(figures[name]))}: {title}"
        curve = draw(title, figures[name], "epoch", colours=FIXED)
        list_ = found.more if name not in MAIN else found.true if name.startswith("true ") else found.main
        list_.append(curve)
    return found


def overlaid(runs: Sequence[tuple[str, list[Figures]]], x: str, keys: Sequence[str]) -> list[Curve]:
    """For each of ``keys`` that at least two of the named runs have, their lines in one chart."""
    found = []
    for key in keys:
        lines = {name: line for name, rows in runs if (line := line_of(rows, key, x))[0]}
        if len(lines) > 1:
            found.append(draw(key.replace("_", " "), lines, x))
    return found


def _plain(name: str) -> str:
    """A label as it stands: neither a formula, nor hidden by a leading underscore."""
    return name.replace("$", r"\$").lstrip("_") or name
