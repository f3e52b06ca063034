"""What tests of parts share: a head from the config, an epoch's clusters, the parts of a model and a batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import get_cfg

from dnreid_plugins.functional.types import Assignment, Clusters, Domain, Epoch
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads import LossHead, build_loss_heads
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.parts import Parts

D = 16
#: fast-reid's own losses keep fast-reid's sections.
SECTIONS = {"TripletLoss": "TRI", "CircleLoss": "CIRCLE", "Cosface": "COSFACE"}


@dataclass(frozen=True)
class World:
    """An epoch and a batch of all its images."""

    epoch: Epoch
    batch: BatchFeatures

    def parts(self, *heads: LossHead, memory: ClusterMemory | None = None) -> Parts:
        """A memory and these heads by the names of their classes, told of the epoch and of what they read in it."""
        parts = parts_of(*heads, memory=memory)
        wanted = {name for head in heads for name in head.reads} - set(self.epoch.clusters)
        joint = self.joint() if wanted else None
        clusters = {**self.epoch.clusters, **dict.fromkeys(sorted(wanted), joint)}
        parts.begin_epoch(replace(self.epoch, clusters=clusters))
        return parts

    def joint(self) -> Clusters:
        """Clusters of both domains, in which a day and a night cluster are never the same."""
        day, night = self.epoch.day, self.epoch.night
        labels = torch.cat([day.labels, torch.where(night.labels >= 0, night.labels + day.num_clusters, -1)])
        images = (torch.cat([day.features, night.features]), torch.cat([day.indices, night.indices]))
        return make_clusters(labels, *images)

    def loss(self, head: LossHead) -> torch.Tensor:
        """The head's loss of the batch."""
        return head(self.batch, self.parts(head))


def parts_of(*heads: LossHead, memory: ClusterMemory | None = None) -> Parts:
    """A memory and these heads by the names of their classes, before the first epoch."""
    return Parts(memory=memory or ClusterMemory(), losses={type(head).__name__: head for head in heads})


def plant(parts: Parts, matching: Assignment | None) -> None:
    """Let the running epoch have this matching, as if some head had made it."""
    assert parts.epoch is not None
    parts.epoch = replace(parts.epoch, matchings={} if matching is None else {"planted": matching})


def configured(name: str, **options: Any) -> LossHead:
    """The head as the config builds it, with keys of its section set."""
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = (name,)
    section = cfg.MODEL.LOSSES[SECTIONS.get(name, name.upper())]
    for key, value in options.items():
        assert key in section, f"{name} has no key {key}"
        section[key] = value
    return build_loss_heads(cfg)[name]


def build(name: str, **options: Any) -> LossHead:
    """The same with weight 1 from the first epoch on."""
    return configured(name, **{"SCALE": 1.0} if name in SECTIONS else {"WEIGHT": ((1, 1.0),)}, **options)


def part(labels: list[int], first: int, *, noise: float = 0.2, width: int = D) -> Clusters:
    """Clusters around shared directions, so that equal numbers are similar across domains."""
    directions = torch.randn(8, width, generator=torch.Generator().manual_seed(7))
    target = torch.tensor(labels, dtype=torch.int64)
    drawn = torch.randn(len(labels), width, generator=torch.Generator().manual_seed(first))
    features = F.normalize(directions[target.clamp(min=0)] + noise * drawn, dim=1)
    return make_clusters(target, features, first + torch.arange(len(labels)))


def renumbered(clusters: Clusters, names: list[int]) -> Clusters:
    """The same clusters with cluster ``c`` called ``names[c]``."""
    to = torch.tensor(names)
    labels = torch.where(clusters.labels >= 0, to[clusters.labels.clamp(min=0)], -1)
    return replace(clusters, labels=labels, centroids=clusters.centroids[torch.argsort(to)])


def unclustered(clusters: Clusters) -> Clusters:
    """The same images, all of them outliers."""
    return replace(clusters, labels=torch.full_like(clusters.labels, -1), centroids=clusters.centroids[:0])


def world_of(day: Clusters, night: Clusters, number: int = 1, last: int = 10) -> World:
    features = torch.cat([day.features, night.features]) * 3 + 0.3
    features = features.clone().requires_grad_()
    batch = BatchFeatures(
        features=features,
        pooled=features * 2,
        targets=torch.cat([day.labels, night.labels]),
        domains=torch.tensor([0] * len(day.labels) + [1] * len(night.labels)),
        indices=torch.cat([day.indices, night.indices]),
    )
    return World(Epoch.of(day, night, number, last), batch)


def world(day: list[int], night: list[int], number: int = 1) -> World:
    """A world of these labels."""
    return world_of(part(day, 0), part(night, len(day)), number)


def turned_world(number: int = 1) -> World:
    """Three clusters per domain and one more at night; day cluster c is night cluster (1, 2, 0)[c]."""
    day, night = part([0, 0, 1, 1, 2, 2, -1], 0), part([0, 0, 1, 2, 2, 2, 3, -1], 7)
    return world_of(day, renumbered(night, [1, 2, 0, 3]), number)


def rows_of(parts: Parts) -> dict[Domain, torch.Tensor]:
    """A copy of the memory's rows by domain."""
    return {domain: parts.memory.rows(domain).clone() for domain in Domain}
