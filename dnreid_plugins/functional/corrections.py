"""Labels under what a person has said of the images: these are one vehicle, those are not, leave this one out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .types import KnownPairs


@dataclass(frozen=True)
class Corrections:
    """What a person has said of ``N`` images.

    Attributes:
        same: ``(N,)`` int64, the group of each image; images of one group are one vehicle. -1 = in no group.
        apart: ``(P, 2)`` int64 (group, image): the image is not of the group's vehicle.
        left_out: ``(N,)`` bool, images that are in no cluster; they are in no group either.
    """

    same: Tensor
    apart: Tensor
    left_out: Tensor

    @property
    def num_groups(self) -> int:
        return int(self.same.max()) + 1 if len(self.same) else 0

    def of(self, indices: Tensor) -> Corrections:
        """The same about the images ``indices`` ``(M,)`` alone, numbered ``0 .. M-1``; groups keep their numbers."""
        place = torch.full((len(self.same),), -1, dtype=torch.int64)
        place[indices] = torch.arange(len(indices))
        apart = torch.stack([self.apart[:, 0], place[self.apart[:, 1]]], dim=1)
        return Corrections(self.same[indices], apart[apart[:, 1] >= 0], self.left_out[indices])


def corrected_labels(labels: Tensor, said: Corrections) -> Tensor:
    """The labels ``(N,)`` with which everything that was ``said`` agrees, as near to ``labels`` as that allows.

    A group goes to the cluster that most of its images are in (the lowest number among equals), or to a new one if
    none of them is in any. Then, from the smallest group to the largest, a group that shares its cluster with an
    image that it must not goes to another cluster of its images, or to a new one. A group of one image stays where
    it is and is an outlier rather than a cluster of its own. All other images keep their labels.

    Args:
        labels: int64, -1 = outlier.
        said: about the same images.

    Returns:
        Int64 labels; new clusters are numbered after the old ones, and a cluster may have lost all of its images.
    """
    result = torch.where(said.left_out, -1, labels)
    groups = torch.unique(said.same[said.same >= 0]).tolist()
    members = {group: torch.nonzero(said.same == group).flatten() for group in groups}
    wishes = {group: _by_count(result[images]) for group, images in members.items()}
    new = int(labels.max()) + 1 if len(labels) else 0
    for group, images in members.items():
        if len(images) > 1:
            result[images] = wishes[group][0] if wishes[group] else new
            new += not wishes[group]
    for group in sorted(groups, key=lambda one: (len(members[one]), -one)):
        images = members[group]
        banned = set(result[_not_with(group, members, said)].tolist()) - {-1}
        if int(result[images[0]]) in banned:
            free = [label for label in wishes[group] if label not in banned] if len(images) > 1 else [-1]
            result[images] = free[0] if free else new
            new += not free
    return result


def known_pairs(day: Tensor, night: Tensor, said: Corrections) -> KnownPairs:
    """Day and night clusters of which a group says that they are, or are not, of the same vehicle.

    Args:
        day: ``(N,)`` int64, number of each image's day cluster; -1 = none, as for every night image.
        night: the same of the night clusters.
        said: about the same images. The newer group is right where two speak of the same cluster.
    """
    same: dict[int, int] = {}
    apart: set[tuple[int, int]] = set()
    for group in range(said.num_groups):
        own, others = said.same == group, said.apart[said.apart[:, 0] == group, 1]
        for a, b in itertools.product(_numbers(day[own]), _numbers(night[own])):
            same = {x: y for x, y in same.items() if x != a and y != b} | {a: b}
        apart.update(itertools.product(_numbers(day[own]), _numbers(night[others])))
        apart.update(itertools.product(_numbers(day[others]), _numbers(night[own])))
    return KnownPairs(_table(sorted(same.items())), _table(sorted(apart - set(same.items()))))


def _by_count(labels: Tensor) -> list[int]:
    """The clusters among ``labels``, the most frequent first."""
    found, counts = torch.unique(labels[labels >= 0], return_counts=True)
    return found[torch.argsort(counts, descending=True, stable=True)].tolist()


def _not_with(group: int, members: dict[int, Tensor], said: Corrections) -> Tensor:
    """Images that may not share a cluster with ``group``, whichever of the two sides it was said of."""
    own = said.apart[said.apart[:, 0] == group, 1]
    others = said.apart[torch.isin(said.apart[:, 1], members[group]), 0]
    return torch.cat([own, *(members[other] for other in others.unique().tolist() if other in members)])


def _numbers(labels: Tensor) -> list[int]:
    return torch.unique(labels[labels >= 0]).tolist()


def _table(pairs: Sequence[tuple[int, int]]) -> Tensor:
    return torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
