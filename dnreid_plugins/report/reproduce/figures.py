"""Items that are pictures: what the models of two or more rows make of the same test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from ...data.items import domain_of
from ...evaluation.evaluator import Extracted
from ...functional.types import Domain
from ..page.attention import Pair, attended
from ..page.curves import line_of
from ..page.folder import RunFolder, read_run
from ..page.maps import MapImages, area_under_curve, cosines, project
from ..page.material import Material, of_folder, sample_of
from ..page.pictures import Thumbnails
from ..page.ranks import DirectionLists, rank_lists
from . import draw
from .catalogue import Item
from .draw import Picture
from .plan import Choice, RowRuns, folder_of

#: Queries of a direction, and pairs of images under Grad-CAM; the same for all systems.
QUERIES, PAIRS = 4, 4
FIRST_RUN = "Of the first run of each row."
Made = tuple[str, list[Picture]]


class Shown(NamedTuple):
    """The first run of a row: its files, its model and the features of its test set."""

    name: str
    run: RunFolder
    material: Material
    extracted: Extracted


def make_figure(item: Item, rows: Sequence[RowRuns], choice: Choice) -> Made:
    """The text and the pictures of an item, of the first run of each row.

    Raises:
        ValueError: a run's model, images or figures are not there any more.
    """
    kind = item.content["draw"]
    if kind == "labels":
        text, pictures = _labels(list(_folders(rows, choice)))
    else:
        text, pictures = DRAWN[kind](item, [_shown(name, run) for name, run in _folders(rows, choice)])
    several = any(len(row.runs) > 1 for row in rows)
    return f"{text}\n\n{FIRST_RUN}" if several else text, pictures


def _folders(rows: Sequence[RowRuns], choice: Choice) -> Iterator[tuple[str, RunFolder]]:
    for row in rows:
        if row.runs:
            folder = folder_of(row.runs[0][1], choice.logs)
            assert folder is not None, "a run without its folder is missing"
            yield row.row.name, read_run(folder)


def _shown(name: str, run: RunFolder) -> Shown:
    material = of_folder(run, training=False)
    found = material.tests.get(run.tests[0])
    if found is None or material.model is None:
        raise ValueError(f"{name} cannot be drawn from {run.folder}: {' '.join(material.missing)}")
    return Shown(name, run, material, found)


def _sampled(one: Shown) -> MapImages:
    rows = sample_of(len(one.extracted.items))
    items = [one.extracted.items[row] for row in rows]
    domains = np.array([int(domain_of(item)) for item in items])
    return MapImages(one.extracted.features[rows], domains, [str(item[1]) for item in items])


def _cosine(item: Item, shown: Sequence[Shown]) -> Made:
    found = {one.name: cosines(_sampled(one)) for one in shown}
    published = item.content.get("published", {})
    lines = []
    for name, kinds in found.items():
        for one in kinds:
            margin = float(one.positive.mean() - one.negative.mean())
            auc = area_under_curve(one.positive, one.negative)
            paper = published.get(name) if one.title.startswith("across") else None
            cells = (
                [f"{paper:.3f}", f"{margin:.3f}", f"{margin - paper:+.3f}"]
                if paper
                else ["–", f"{margin:.3f}", "–"]
            )
            lines.append([name, one.title, *cells, "–" if auc is None else f"{auc:.1f}"])
    heads = ["row", "pairs", "margin paper", "ours", "difference", "AUC, %"]
    text = tabulate(lines, heads, tablefmt="github", disable_numparse=True)
    note = "Margin: mean cosine of pairs of the same identity less that of different ones. AUC: how often a pair of "
    return f"{text}\n\n{note}the same identity is the more similar one.", [draw.histograms(found)]


def _map(item: Item, shown: Sequence[Shown]) -> Made:
    found = {}
    for one in shown:
        images = _sampled(one)
        points = project(images.features)
        if points is None:
            raise ValueError(f"{one.name} cannot be drawn: its test set has too few images for a map.")
        found[one.name] = (points, images)
    return "Above by domain, below by identity: day as dots, night as triangles.", [draw.maps(found)]


def _attention(item: Item, shown: Sequence[Shown]) -> Made:
    pairs = pairs_of(shown[0].extracted)
    if not pairs:
        raise ValueError(f"{item.id} cannot be drawn: no identity has test images of both domains.")
    found = {one.name: attended(one.material.model, one.run.cfg, pairs) for one in shown}  # type: ignore[arg-type]
    text = "What raises the cosine of a day image with the night image of the same identity beside it, and the other "
    return f"{text}way round; the identities are drawn at random.", [draw.attention(found)]


def pairs_of(extracted: Extracted, count: int = PAIRS, seed: int = 0) -> list[Pair]:
    """The first day and the first night image of some identities at random."""
    first: dict[Any, dict[Domain, tuple[Any, ...]]] = {}
    for item in extracted.items:
        first.setdefault(item[1], {}).setdefault(domain_of(item), item)
    both = [one for _, one in sorted(first.items()) if len(one) == len(Domain)]
    chosen = np.random.default_rng(seed).permutation(len(both))[:count]
    return [Pair(both[i][Domain.DAY], both[i][Domain.NIGHT], "", True) for i in sorted(chosen.tolist())]


def _ranks(item: Item, shown: Sequence[Shown]) -> Made:
    length, thumbnails = int(item.content.get("length", 10)), Thumbnails()
    queries = queries_of(shown[0].extracted)
    queries = {name: rows for name, rows in queries.items() if name in item.directions}
    found = {one.name: rank_lists(one.extracted, thumbnails, queries=queries) for one in shown}
    lines, pictures = [], []
    for place, direction in enumerate(name for name in queries):
        lists: dict[str, DirectionLists] = {name: one[place] for name, one in found.items()}
        pictures.append(draw.ranks(lists, length))
        for name, one in lists.items():
            right = sum(
                r.correct for q in one.lists for r in q.results if r.rank is not None and r.rank <= length
            )
            lines.append([name, direction, f"{right} of {length * len(one.lists)}", f"{one.mean_ap:.1f}"])
    heads = ["row", "direction", f"correct among the first {length}, shown queries", "mAP, all queries"]
    text = tabulate(lines, heads, tablefmt="github", disable_numparse=True)
    return (
        f"{text}\n\nThe queries are drawn at random. Solid green: the same identity; dashed red: another one.",
        pictures,
    )


def queries_of(extracted: Extracted, count: int = QUERIES, seed: int = 0) -> dict[str, list[int]]:
    """Rows of some queries of each direction at random, of different identities that its gallery has."""
    found = {}
    for one in extracted.protocol.directions:
        there = {extracted.items[i][1] for i in one.gallery}
        rows: dict[Any, int] = {}
        for row in np.random.default_rng(seed).permutation(len(one.query)).tolist():
            identity = extracted.items[one.query[row]][1]
            if identity in there and len(rows) < count:
                rows.setdefault(identity, row)
        found[one.name] = list(rows.values())
    return found


def _labels(runs: Sequence[tuple[str, RunFolder]]) -> Made:
    found = {
        domain.word: {
            key: {name: line_of(run.health, f"true/{domain.word}/{key}", "epoch") for name, run in runs}
            for key in draw.QUALITY
        }
        for domain in Domain
    }
    lines = [
        [
            name,
            domain,
            *(f"{one[key][name][1][-1]:.3f}" if one[key][name][1] else "–" for key in draw.QUALITY),
        ]
        for name, _ in runs
        for domain, one in found.items()
    ]
    text = tabulate(lines, ["row", "domain", *draw.QUALITY], tablefmt="github", disable_numparse=True)
    return (
        f"{text}\n\nOf the last epoch, over all training images; an image in no cluster counts as one of its own.",
        [draw.labels(found)],
    )


DRAWN: dict[str, Callable[[Item, Sequence[Shown]], Made]] = {
    "cosine": _cosine,
    "map": _map,
    "attention": _attention,
    "rank-lists": _ranks,
}
