"""The clusters of a run as the page shows them: those of its ``clusters.csv`` under what a person has said."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from ...engine.cluster_file import COLUMNS
from ...functional.corrections import Corrections, corrected_labels, known_pairs
from ...functional.types import Assignment, Domain
from ...labels.corrections import APART, SAME, CorrectionRow, said_of

Order = Literal["size", "matched", "uncertain"]


@dataclass(frozen=True)
class Cluster:
    """Some images of a domain.

    Attributes:
        number: within the domain; -1 = those that are in no cluster.
        images: their numbers in the table, from 0.
        partner: number of the matched cluster of the other domain; None = none.
        score: of the matching; None where a person has said it, and where there is no partner.
        confirmed: a person has said that all of the images are one vehicle.
    """

    domain: Domain
    number: int
    images: tuple[int, ...]
    partner: int | None = None
    score: float | None = None
    confirmed: bool = False

    @property
    def name(self) -> str:
        return f"{self.domain.word} {self.number}"


@dataclass(frozen=True)
class View:
    """All clusters at one moment, by domain and number."""

    clusters: dict[tuple[Domain, int], Cluster]

    def get(self, domain: Domain, number: int) -> Cluster | None:
        return self.clusters.get((domain, number))

    def sorted(self, domain: Domain, order: Order) -> list[Cluster]:
        """Clusters of a domain.

        "size": the largest first. "matched": the best matches first, those of a person before all, and then those
        without a match. "uncertain": the worst matches first, then those without a match; confirmed ones last.
        """
        own = [one for (which, number), one in self.clusters.items() if which == domain and number >= 0]

        def key(one: Cluster) -> tuple[float, ...]:
            score = 2.0 if one.score is None else one.score
            if order == "size":
                return (-len(one.images), one.number)
            if order == "matched":
                return (one.partner is None, -score, -len(one.images), one.number)
            sure = one.confirmed or (one.partner is not None and one.score is None)
            return (sure, one.partner is None, score, -len(one.images), one.number)

        return sorted(own, key=key)


@dataclass(frozen=True)
class ClusterTable:
    """``clusters.csv``: path, domain ``(N,)`` and cluster ``(N,)`` of each image, and the matching of the clusters."""

    paths: list[str]
    domains: Tensor
    labels: Tensor
    matching: Assignment

    @classmethod
    def read(cls, file: Path) -> ClusterTable:
        """
        Raises:
            ValueError: it is no such file.
        """
        rows: list[tuple[str, int, int, tuple[int, float]]] = []
        try:
            with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
                for row in csv.DictReader(lines, strict=True):
                    path, domain, cluster, partner, score = (row[name] for name in COLUMNS)
                    pair = (int(partner), float(score or "nan")) if partner else (-1, 0.0)
                    rows.append((path, int(Domain.named(domain)), int(cluster), pair))
        except (ValueError, KeyError, TypeError, AttributeError, csv.Error):
            raise ValueError(f"{file} is damaged at image {len(rows) + 1}; run an epoch again.") from None
        of, found = (torch.tensor([row[place] for row in rows], dtype=torch.int64) for place in (1, 2))
        return cls([row[0] for row in rows], of, found, _matching(of, found, [row[3] for row in rows]))

    def view(self, rows: Sequence[CorrectionRow]) -> View:
        """The clusters with which ``rows`` agree; clusters keep their numbers, new ones come after them."""
        said, _ = said_of(rows, self.paths)
        labels = torch.full_like(self.labels, -1)
        for domain in Domain:
            own = torch.nonzero(self.domains == domain).flatten()
            labels[own] = corrected_labels(self.labels[own], said.of(own))
        images: dict[tuple[int, int], list[int]] = {}
        for image, place in enumerate(zip(self.domains.tolist(), labels.tolist())):
            images.setdefault(place, []).append(image)
        matching, group = self._matching_of(labels, said), said.same.tolist()
        partners = [[one.tolist() for one in matching.partner(domain)] for domain in Domain]
        clusters = {}
        for (which, number), inside in images.items():
            partner, score = (one[number] if number >= 0 else -1 for one in partners[which])
            groups = {group[image] for image in inside}
            clusters[Domain(which), number] = Cluster(
                Domain(which),
                number,
                tuple(inside),
                partner if partner >= 0 else None,
                score if partner >= 0 and not math.isnan(score) else None,
                number >= 0 and len(groups) == 1 and -1 not in groups,
            )
        return View(clusters)

    def _matching_of(self, labels: Tensor, said: Corrections) -> Assignment:
        """The matching of the file between the corrected clusters, and what is said of it; NaN = score of a person."""
        sizes, follow = [], []
        for domain in Domain:
            own, partner = self.domains == domain, self.matching.partner(domain)[0]
            sizes.append(max(_last(labels[own]) + 1, len(partner)))
            follow.append(_successors(self.labels[own], labels[own], len(partner)))
        everyone = [torch.where(self.domains == domain, labels, -1) for domain in Domain]
        known = known_pairs(everyone[0], everyone[1], said)
        barred = set(map(tuple, known.apart.tolist()))
        result = Assignment.empty(*sizes)
        for domain in Domain:
            new, new_score = result.partner(domain)
            old, old_score = self.matching.partner(domain)
            for number in sorted(range(len(old)), key=lambda one: -float(old_score[one])):
                one, other = follow[domain].get(number), follow[domain.other].get(int(old[number]))
                if one is None or other is None:
                    continue
                if ((one, other) if domain == Domain.DAY else (other, one)) in barred:
                    continue
                if one == number or new[one] < 0:  # what a cluster itself was matched with comes first
                    new[one], new_score[one] = other, old_score[number]
        result = result.with_known(known)
        for one, other in known.same.tolist():
            result.day_score[one] = result.night_score[other] = float("nan")
        return result

    def export(self, view: View, rows: Sequence[CorrectionRow]) -> bytes:
        """The corrected labels as CSV: the columns of ``clusters.csv``, and those of the refiner Corrections."""
        said = {row.path: row for row in rows}
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow((*COLUMNS, SAME, APART))
        cluster_of = {image: one for one in view.clusters.values() for image in one.images}
        for image, path in enumerate(self.paths):
            one, row = cluster_of[image], said.get(path)
            partner = "" if one.partner is None else one.partner
            score = "" if one.score is None else f"{one.score:.6g}"
            same = "" if row is None or row.same is None else row.same
            apart = " ".join(map(str, row.apart)) if row else ""
            table.writerow((path, one.domain.word, one.number, partner, score, same, apart))
        return text.getvalue().encode("utf-8", "surrogateescape")


def _last(labels: Tensor) -> int:
    return int(labels.max()) if len(labels) else -1


def _matching(domains: Tensor, labels: Tensor, partners: Sequence[tuple[int, float]]) -> Assignment:
    sizes = [_last(labels[domains == domain]) + 1 for domain in Domain]
    result = Assignment.empty(*sizes)
    pairs = dict(zip(zip(domains.tolist(), labels.tolist()), partners))
    for (domain, number), (partner, score) in pairs.items():
        if number >= 0 and 0 <= partner < sizes[1 - domain]:
            other, scores = result.partner(domain)
            other[number], scores[number] = partner, score
    return result


def _successors(old: Tensor, new: Tensor, count: int) -> dict[int, int]:
    """Old cluster -> itself if it still has images, else where most of its images went."""
    went: dict[int, Counter[int]] = {}
    for number, label in zip(old.tolist(), new.tolist()):
        if number >= 0 and label >= 0:
            went.setdefault(number, Counter())[label] += 1
    left = set(new.tolist())
    follow = {number: number if number in left else to.most_common(1)[0][0] for number, to in went.items()}
    return {**follow, **{number: number for number in range(count) if number in left}}
