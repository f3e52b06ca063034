"""The parts of a page that are made from features: maps, histograms, rank lists and Grad-CAM of each set."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from ...data.items import DomainItem, domain_of
from ...evaluation.evaluator import Extracted
from ...functional.types import Domain
from .atlas import AtlasRow
from .attention import Attended, Pair, attended
from .curves import Curve
from .folder import ClusterRow, RunFolder
from .maps import NO_GROUP, MapImages, Similarity, draw_map, project, similarities
from .material import Material, sample_of
from .pictures import Thumbnails
from .ranks import DirectionLists, rank_lists
from .results_table import directions
from .sheets import Sheets

#: Pairs of each kind under Grad-CAM.
PAIRS = 3

T = TypeVar("T")
#: ``attempt(what, make)``: what ``make`` gives, or None with a note that ``what`` could not be made.
Attempt = Callable[[str, Callable[[], T]], "T | None"]


@dataclass
class SetView:
    """What the page shows of one set of images.

    Attributes:
        what: what the groups of images are, "identities" or "clusters".
        note: what the features are.
        checks: for each direction whether its queries give the mAP of the results.
        atlas: the images of the map.
    """

    name: str
    what: str
    note: str
    map: list[Curve] = field(default_factory=list)
    similarities: list[Similarity] = field(default_factory=list)
    directions: list[DirectionLists] = field(default_factory=list)
    checks: dict[str, str] = field(default_factory=dict)
    attention: list[Attended] = field(default_factory=list)
    atlas: list[AtlasRow] = field(default_factory=list)


def test_view(
    run: RunFolder, material: Material, name: str, thumbnails: Thumbnails, attempt: Attempt[Any]
) -> SetView:
    """Everything that is shown of a test set."""
    extracted = material.tests[name]
    view = SetView(name, "identities", f"Features of the test images of {name} as they were scored.")
    lists = attempt(f"The rank lists of {name}", lambda: rank_lists(extracted, thumbnails))
    view.directions = lists or []
    view.checks = {one.name: _check(run, name, one) for one in view.directions}
    rows = sample_of(len(extracted.items))
    items = [extracted.items[row] for row in rows]
    groups = [str(item[1]) for item in items]
    domains = np.array([int(domain_of(item)) for item in items])
    images = MapImages(extracted.features[rows], domains, groups)
    view.similarities = attempt(f"The histograms of {name}", lambda: similarities(images)) or []
    points = attempt(f"The map of {name}", lambda: project(images.features))
    if points is not None:
        view.map = draw_map(points, images, "identity")
        aps = {path: ap for one in view.directions for path, ap in zip(one.paths, one.aps)}
        view.atlas = [
            AtlasRow(
                item[0], "test", name, domain_of(item).word, group, None, float(x), float(y), aps.get(item[0])
            )
            for item, group, (x, y) in zip(items, groups, points)
        ]
    pairs = _first_results(extracted, view.directions)
    if pairs and material.model is not None:
        view.attention = attempt("Grad-CAM", lambda: attended(material.model, run.cfg, pairs)) or []  # type: ignore[arg-type]
    return view


def _check(run: RunFolder, name: str, lists: DirectionLists) -> str:
    """Whether the mean AP of the queries is the mAP of the results, in a sentence."""
    told = directions(run.results.get(name)).get(lists.name, {}).get("mAP")
    said = f"Mean AP of all {len(lists.aps)} queries: {lists.mean_ap:.2f} %"
    said += " without re-ranking" if run.cfg.TEST.RERANK.ENABLED else ""
    if lists.galleries > 1:
        return f"{said} in the first of {lists.galleries} galleries; the results are the mean over all."
    if told is None:
        return f"{said}."
    if math.isclose(told, lists.mean_ap, abs_tol=0.005):
        return f"{said}, the mAP of the results."
    return f"{said}, while the results say {told:.2f} %: code, weights or images are others than those of the run."


def _first_results(extracted: Extracted, directions: list[DirectionLists]) -> list[Pair]:
    """Queries with their first result: some that are correct, some that are not."""
    items = {item[0]: item for item in extracted.items}
    found: dict[bool, list[Pair]] = {True: [], False: []}
    for lists in zip(*(one.lists for one in directions)):
        for one in lists:
            first = next((result for result in one.results if result.rank == 1), None)
            if first is None or len(found[first.correct]) == PAIRS:
                continue
            query, result = items[one.path], items[first.path]
            caption = f"{domain_of(query).word} query, first {domain_of(result).word} result"
            found[first.correct].append(Pair(query, result, caption, first.correct))
    return found[True] + found[False]


def train_view(run: RunFolder, material: Material, attempt: Attempt[Any]) -> SetView | None:
    """The map of the training images by cluster, and what stands for test images where there are none."""
    sample = material.train
    if sample is None or not run.clusters:
        return None
    rows = [run.clusters[row] for row in sample.rows]
    groups = [group_of(row) for row in rows]
    domains = np.array([int(Domain.named(row.domain)) for row in rows])
    images = MapImages(sample.features, domains, groups)
    view = SetView("training images", "clusters", sample.when)
    if not material.tests:
        view.similarities = attempt("The histograms of the clusters", lambda: similarities(images)) or []
    points = attempt("The map of the training images", lambda: project(sample.features))
    if points is not None:
        view.map = draw_map(points, images, "cluster")
        ids = material.identities
        view.atlas = [
            AtlasRow(
                material.paths[place],
                "train",
                ", ".join(run.cfg.DATASETS.NAMES),
                row.domain,
                None if ids is None else ids[place],
                group or None,
                float(x),
                float(y),
                None,
            )
            for place, row, group, (x, y) in zip(sample.rows, rows, groups, points)
        ]
    return view


def group_of(row: ClusterRow) -> str:
    """The name of an image's cluster; a night cluster has that of its day partner, `NO_GROUP` for none."""
    if row.cluster < 0:
        return NO_GROUP
    if row.domain == "night" and row.partner >= 0:
        return f"day {row.partner}"
    return f"{row.domain} {row.cluster}"


def attention_of_clusters(
    run: RunFolder, material: Material, found: Sheets, attempt: Attempt[Any]
) -> list[Attended]:
    """Grad-CAM of the first images of matched clusters, for runs without a scored set."""
    first: dict[tuple[str, int], str] = {}
    for row, path in zip(run.clusters, material.paths):
        first.setdefault((row.domain, row.cluster), path)
    pairs = []
    for day, night in found.pairs[:PAIRS]:
        one, other = (
            DomainItem(first[sheet.domain, sheet.cluster], 0, 0, Domain.named(sheet.domain))
            for sheet in (day, night)
        )
        caption = f"day cluster {day.cluster}, night cluster {night.cluster}"
        pairs.append(Pair(one, other, caption, None))
    if not pairs or material.model is None:
        return []
    return attempt("Grad-CAM", lambda: attended(material.model, run.cfg, pairs)) or []  # type: ignore[arg-type]
