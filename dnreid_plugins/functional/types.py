"""The value objects that the whole package shares: domains, the clusters of an epoch, a cross-domain matching."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

import numpy as np
import torch
from torch import Tensor


class Domain(IntEnum):
    """The two imaging conditions. Visible counts as day; infrared and thermal count as night."""

    DAY = 0
    NIGHT = 1

    @classmethod
    def named(cls, name: str | int) -> Domain:
        """``"day"`` or ``"night"`` in any case, 0 or 1, or a `Domain`.

        Raises:
            ValueError: anything else.
        """
        for domain in cls:
            if name == domain or str(name).lower() == domain.name.lower():
                return domain
        raise ValueError(f"The domain is {name!r}; it is 'day' (0) or 'night' (1).")

    @property
    def other(self) -> Domain:
        return Domain(1 - self.value)

    @property
    def word(self) -> str:
        """``"day"`` or ``"night"``."""
        return self.name.lower()


#: What the batches of one step of an iteration are drawn from: the clusters of each domain ("domains"), the clusters
#: called "joint" that have images of both, as many of either ("joint"), or those clusters as they are ("union").
StreamName = Literal["domains", "joint", "union"]


@dataclass(frozen=True)
class Clusters:
    """Pseudo labels of some images, of one domain or of both, in one epoch.

    Attributes:
        labels: ``(N,)`` int64, cluster of each of these images in canonical order; -1 = outlier. Clusters are
            numbered ``0 .. C-1`` without gaps.
        features: ``(N, D)`` float32 unit rows the labels were made from.
        centroids: ``(C, D)`` float32 unit rows, the normalised mean feature of each cluster.
        indices: ``(N,)`` int64, position of each image in the whole canonical training list.
        radius: the largest distance between neighbours of one cluster, where the source has one.
    """

    labels: Tensor
    features: Tensor
    centroids: Tensor
    indices: Tensor
    radius: float | None = None

    @property
    def num_clusters(self) -> int:
        return self.centroids.shape[0]


@dataclass(frozen=True)
class Assignment:
    """Which day cluster goes with which night cluster. Partial coverage is normal; either side may be empty.

    The two maps are inverses of each other for a one-to-one matcher; a many-to-one matcher covers
    the larger side by repetition, so ``day_to_night`` and ``night_to_day`` may then name different pairs.

    Attributes:
        day_to_night: ``(C_day,)`` int64, night partner of each day cluster; -1 = none.
        night_to_day: ``(C_night,)`` int64, day partner of each night cluster; -1 = none.
        day_score: ``(C_day,)`` float32, score of the partner; 0 where there is none.
        night_score: ``(C_night,)`` float32, the same for night clusters.
    """

    day_to_night: Tensor
    night_to_day: Tensor
    day_score: Tensor
    night_score: Tensor

    @classmethod
    def empty(cls, num_day: int, num_night: int) -> Assignment:
        """No pair at all between ``num_day`` and ``num_night`` clusters."""
        return cls(
            torch.full((num_day,), -1, dtype=torch.int64),
            torch.full((num_night,), -1, dtype=torch.int64),
            torch.zeros(num_day),
            torch.zeros(num_night),
        )

    @classmethod
    def from_pairs(cls, pairs: Tensor, scores: Tensor, num_day: int, num_night: int) -> Assignment:
        """One-to-one matching from ``(P, 2)`` int64 (day, night) pairs and their ``(P,)`` scores."""
        result = cls.empty(num_day, num_night)
        day, night = pairs[:, 0].cpu(), pairs[:, 1].cpu()
        score = scores.detach().float().cpu()
        result.day_to_night[day], result.day_score[day] = night, score
        result.night_to_day[night], result.night_score[night] = day, score
        return result

    def partner(self, domain: Domain | int) -> tuple[Tensor, Tensor]:
        """Map and scores that lead from the clusters of ``domain`` to those of the other one."""
        if int(domain) == Domain.DAY:
            return self.day_to_night, self.day_score
        return self.night_to_day, self.night_score

    def with_unit_scores(self) -> Assignment:
        """The same pairs, each with score 1."""
        ones = ((self.day_to_night >= 0).float(), (self.night_to_day >= 0).float())
        return Assignment(self.day_to_night, self.night_to_day, *ones)

    def with_known(self, known: KnownPairs) -> Assignment:
        """The matching with the pairs that are ``known``: those that are one, with score 1, and without the others."""
        maps = [self.day_to_night.clone(), self.night_to_day.clone()]
        scores = [self.day_score.clone(), self.night_score.clone()]
        for a, b in known.apart.tolist():
            for own, one, other in ((0, a, b), (1, b, a)):
                if maps[own][one] == other:
                    maps[own][one], scores[own][one] = -1, 0.0
        for a, b in known.same.tolist():
            for own, one, other in ((0, a, b), (1, b, a)):
                lost = maps[own] == other  # whoever went with one of the two goes with nobody
                maps[own][lost], scores[own][lost] = -1, 0.0
                maps[own][one], scores[own][one] = other, 1.0
        return Assignment(maps[0], maps[1], scores[0], scores[1])

    def pairs(self) -> Tensor:
        """``(P, 2)`` int64, every distinct (day, night) pair that either map names, sorted."""
        day = torch.nonzero(self.day_to_night >= 0).flatten()
        night = torch.nonzero(self.night_to_day >= 0).flatten()
        both = torch.cat(
            [
                torch.stack([day, self.day_to_night[day]], dim=1),
                torch.stack([self.night_to_day[night], night], dim=1),
            ]
        )
        return torch.unique(both, dim=0)


@dataclass(frozen=True)
class KnownPairs:
    """What is known of day and night clusters before any matching, from a person for instance.

    Attributes:
        same: ``(P, 2)`` int64 (day, night) pairs of the same vehicle; no cluster is in two of them.
        apart: ``(Q, 2)`` int64 pairs of different vehicles.
    """

    same: Tensor
    apart: Tensor


@dataclass(frozen=True)
class Epoch:
    """What every part of a method receives once per epoch.

    Attributes:
        number: of this epoch, from 1.
        last: number of the run's last epoch.
        clusters: by name; ``"day"`` and ``"night"`` always, and whatever else the label source makes (``"joint"``).
        soft: soft targets by name, where a refiner of the labels makes them.
        matchings: between the day and the night clusters, by the name of the loss head whose matcher made them,
            in the order of the heads in the config.
        known: pairs that hold in every matching, where a refiner of the labels knows some.
        figures: what label source and refiners add to the health line; NaN = undefined.
    """

    number: int
    last: int
    clusters: Mapping[str, Clusters]
    soft: Mapping[str, Tensor] = field(default_factory=dict)
    matchings: Mapping[str, Assignment] = field(default_factory=dict)
    known: KnownPairs | None = None
    figures: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, day: Clusters, night: Clusters, number: int, last: int) -> Epoch:
        """An epoch with the clusters of the two domains and nothing else."""
        return cls(number, last, {"day": day, "night": night})

    def __getitem__(self, domain: Domain | int) -> Clusters:
        return self.clusters[Domain(domain).word]

    @property
    def day(self) -> Clusters:
        return self.clusters["day"]

    @property
    def night(self) -> Clusters:
        return self.clusters["night"]

    @property
    def matching(self) -> Assignment | None:
        """The matching of the last head that made one; None if there is none."""
        return list(self.matchings.values())[-1] if self.matchings else None

    def mixed(self, name: str = "joint") -> Tensor:
        """``(C,)`` bool: which clusters ``name`` have images of both domains."""
        count = self.clusters[name].num_clusters
        found = [self.targets(name, self[domain].indices) for domain in Domain]
        day, night = (torch.bincount(own[own >= 0], minlength=count) > 0 for own in found)
        return day & night

    def has_batches(self, stream: StreamName) -> bool:
        """Whether there is anything to draw for ``stream``."""
        if stream == "domains":
            return any(self[domain].num_clusters > 0 for domain in Domain)
        if "joint" not in self.clusters:
            return False
        return self.clusters["joint"].num_clusters > 0 if stream == "union" else bool(self.mixed().any())

    def targets(self, name: str, indices: Tensor) -> Tensor:
        """``(B,)`` int64, cluster of the images ``indices`` among ``clusters[name]``; -1 = none of them."""
        part = self.clusters[name]
        table = torch.full(
            (int(max(c.indices.max() for c in self.clusters.values() if len(c.indices))) + 1,), -1
        )
        table[part.indices] = part.labels
        return table.to(indices.device)[indices]


@dataclass(frozen=True)
class TrainImages:
    """What is known about the training images, in canonical order.

    Attributes:
        domains: ``(N,)`` int64.
        cams: ``(N,)`` int64 camera numbers.
        true_ids: ``(N,)`` int64 identities, the same number in both domains; None where an image has none. An
            unsupervised source must not read them.
        paths: of the ``N`` files; empty where nobody asks for them.
    """

    domains: Tensor
    cams: Tensor
    true_ids: np.ndarray | None
    paths: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.domains)
