"""The pictures of items as PNG files: panels side by side, one for each row of an item."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..page.attention import Attended
from ..page.maps import Cosines, MapImages, Points, draw_histogram, scatter_domains, scatter_groups
from ..page.pictures import COLOURS, OF_DIRECTION, png, subplots
from ..page.ranks import DirectionLists, RankList
from .figures_of_runs import Measured

CORRECT, WRONG = "#0f766e", "#dc2626"
#: Figures of clusters that are drawn for each epoch.
QUALITY = {"ARI": "adjusted Rand index", "AMI": "adjusted mutual information"}
QUALITY |= {"FMI": "Fowlkes-Mallows index", "V": "V-measure"}

#: Of a system: epochs, and the figures of QUALITY in them by domain.
Labels = Mapping[str, tuple[Sequence[float], Sequence[float]]]


class Picture(NamedTuple):
    """A PNG file, and what it shows in words."""

    content: bytes
    alt: str


def sweep(values: Sequence[float], found: Sequence[Measured], metrics: Sequence[str], label: str) -> Picture:
    """Each metric over the values: ours with the spread of the runs, the paper's as crosses."""
    figure, panels = subplots(1, len(metrics), 4.2, 3.0)
    for axes, metric in zip(panels[0], metrics):
        for direction, colour in OF_DIRECTION.items():
            means = [one.mean(direction, metric) for one in found]
            every = [[v for vs in one.grid(direction, metric).values() for v in vs] for one in found]
            spread = [float(np.std(one, ddof=1)) if len(one) > 1 else 0.0 for one in every]
            axes.errorbar(values, means, spread, marker="o", ms=4, capsize=2, color=colour, label=direction)
            paper = [one.published(direction, metric) for one in found]
            if np.isfinite(paper).any():
                axes.plot(
                    values, paper, ls="--", marker="x", color=colour, alpha=0.6, label=f"{direction}, paper"
                )
        axes.set(xlabel=label, ylabel=f"{metric}, %", xticks=list(values))
    panels[0][0].legend(frameon=False, fontsize=8)
    return _png(figure, f"{' and '.join(metrics)} over {label}")


def histograms(found: Mapping[str, Sequence[Cosines]]) -> Picture:
    """A row of panels for each system: cosines of pairs within day, within night and across."""
    width = max(len(one) for one in found.values())
    figure, panels = subplots(len(found), width, 3.4, 2.4)
    for line, (name, kinds) in zip(panels, found.items()):
        for axes, one in zip(line, kinds):
            draw_histogram(axes, one)
            axes.set_title(f"{name}\n{one.title}", fontsize=9)
    return _png(figure, f"Cosines of pairs of test images: {', '.join(found)}")


def maps(found: Mapping[str, tuple[Points, MapImages]]) -> Picture:
    """A column for each system: the map by domain, and by identity."""
    figure, panels = subplots(2, len(found), 4.2, 4.0)
    for column, (name, (points, images)) in enumerate(found.items()):
        scatter_domains(panels[0][column], points, images)
        shown, total = scatter_groups(panels[1][column], points, images)
        panels[0][column].set_title(name, fontsize=10)
        panels[1][column].set_title(f"{shown} of {total} identities in colour", fontsize=9)
    return _png(figure, f"t-SNE of {len(points)} test images: {', '.join(found)}")


def attention(found: Mapping[str, Sequence[Attended]]) -> Picture:
    """A row for each pair: the day image and its maps by each system, then the night image likewise."""
    names, pairs = list(found), len(next(iter(found.values())))
    heads = [head for domain in ("day", "night") for head in (domain, *names)]
    first = next(iter(found.values()))[0].pictures[0]
    figure, panels = subplots(pairs, len(heads), 1.6, 1.6 * _height(first) + 0.1)
    for row in range(pairs):
        shown = [one[row] for one in found.values()]
        for side, domain in enumerate((0, 2)):
            pictures = [shown[0].pictures[domain], *(one.pictures[domain + 1] for one in shown)]
            for column, uri in enumerate(pictures, side * (1 + len(names))):
                _show(panels[row][column], uri)
    for axes, head in zip(panels[0], heads):
        axes.set_title(head, fontsize=8)
    return _png(figure, f"Grad-CAM of {pairs} pairs of the same identity: {', '.join(names)}")


def ranks(found: Mapping[str, DirectionLists], length: int) -> Picture:
    """For each query a row by each system: the query, then its first results, correct ones framed in green."""
    names, queries = list(found), len(next(iter(found.values())).lists)
    first = next(iter(found.values())).lists[0].picture.uri
    figure, panels = subplots(queries * len(names), length + 1, 1.1, 1.1 * _height(first) + 0.1)
    for query in range(queries):
        for place, name in enumerate(names):
            _line(panels[query * len(names) + place], name, found[name].lists[query], length)
    direction = next(iter(found.values())).name
    return _png(figure, f"First {length} results of {queries} queries, {direction}: {', '.join(names)}")


def _line(line: Sequence[Any], name: str, one: RankList, length: int) -> None:
    _show(line[0], one.picture.uri)
    line[0].set_ylabel(name, fontsize=7)
    shown = [result for result in one.results if result.rank is not None][:length]
    for axes, result in zip(line[1:], shown):
        _show(axes, result.picture.uri)
        axes.spines[:].set(visible=True, color=CORRECT if result.correct else WRONG, linewidth=2.2)
        axes.spines[:].set_linestyle("-" if result.correct else "--")
    for axes in line[1 + len(shown) :]:
        _show(axes, "")


def labels(found: Mapping[str, Mapping[str, Labels]]) -> Picture:
    """A row of panels for each domain: figures of its clusters over the epochs, a line for each system.

    Args:
        found: ``{domain: {figure: {system: (epochs, values)}}}``.
    """
    figure, panels = subplots(len(found), len(QUALITY), 3.4, 2.6)
    for line, (domain, figures) in zip(panels, found.items()):
        for axes, (key, words) in zip(line, QUALITY.items()):
            for colour, (name, (epochs, values)) in zip(COLOURS, figures[key].items()):
                axes.plot(
                    epochs, values, marker="o" if len(epochs) < 30 else "", ms=3, color=colour, label=name
                )
            axes.set(xlabel="epoch", title=f"{domain}: {words}")
            axes.title.set_fontsize(9)
    panels[0][0].legend(frameon=False, fontsize=8)
    return _png(figure, "Quality of the pseudo labels in each epoch")


def _height(uri: str) -> float:
    """Of an image of width 1; 1 for one that could not be read."""
    image = _image(uri)
    return 1.0 if image is None else image.height / image.width


def _image(uri: str) -> Image.Image | None:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB") if uri else None


def _show(axes: Any, uri: str) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    image = _image(uri)
    if image is not None:
        axes.imshow(image)


def _png(figure: Any, alt: str) -> Picture:
    return Picture(png(figure), alt)
