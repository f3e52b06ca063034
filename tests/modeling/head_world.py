"""What tests of loss heads share: a head from the config, an epoch's clusters, a memory and a batch of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from fastreid.config import get_cfg

from dnreid_plugins.functional.types import DomainClusters, EpochClusters
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads import LossHead, build_loss_heads
from dnreid_plugins.modeling.memory import PrototypeMemory

D = 16
World = tuple[EpochClusters, PrototypeMemory, BatchFeatures]


def configured(name: str, **options: Any) -> LossHead:
    """The head as the config builds it, with keys of its section set."""
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = (name,)
    for key, value in options.items():
        cfg.MODEL.LOSSES[name.upper()][key] = value
    head = build_loss_heads(cfg)[name]
    assert isinstance(head, LossHead)
    return head


def build(name: str) -> LossHead:
    """The head of the default config, with weight 1 from the first epoch on."""
    return configured(name, WEIGHT=((1, 1.0),))


def part(labels: list[int], first: int, noise: float = 0.2, seed: int = 0) -> DomainClusters:
    """Clusters around shared directions, so that equal numbers are similar across domains."""
    generator = torch.Generator().manual_seed(seed + first)
    directions = torch.randn(8, D, generator=torch.Generator().manual_seed(7))
    target = torch.tensor(labels, dtype=torch.int64)
    features = directions[target.clamp(min=0)] + noise * torch.randn(len(labels), D, generator=generator)
    features = F.normalize(features, dim=1)
    count = int(target.max()) + 1 if len(labels) else 0
    centroids = (
        torch.stack([features[target == c].mean(0) for c in range(max(count, 0))]) if count else features[:0]
    )
    return DomainClusters(target, features, F.normalize(centroids, dim=1), first + torch.arange(len(labels)))


def renumbered(clusters: DomainClusters, names: list[int]) -> DomainClusters:
    """The same clusters with cluster ``c`` called ``names[c]``."""
    to = torch.tensor(names)
    labels = torch.where(clusters.labels >= 0, to[clusters.labels.clamp(min=0)], -1)
    return DomainClusters(labels, clusters.features, clusters.centroids[torch.argsort(to)], clusters.indices)


def world_of(clusters: EpochClusters) -> World:
    """A memory of these clusters and a batch of all their images."""
    memory = PrototypeMemory()
    memory.rebuild(clusters, "cpu")
    day, night = clusters.day, clusters.night
    features = torch.cat([day.features, night.features]) * 3 + 0.3
    features = features.clone().requires_grad_()
    batch = BatchFeatures(
        features,
        features * 2,
        torch.cat([day.labels, night.labels]),
        torch.tensor([0] * len(day.labels) + [1] * len(night.labels)),
        torch.arange(len(features)),
    )
    return clusters, memory, batch


def world(day: list[int], night: list[int], epoch: int = 1) -> World:
    return world_of(EpochClusters(part(day, 0), part(night, len(day)), epoch, 10))


def turned_world(epoch: int = 1) -> World:
    """Three clusters per domain and one more at night; day cluster c is night cluster (1, 2, 0)[c]."""
    day, night = part([0, 0, 1, 1, 2, 2, -1], 0), part([0, 0, 1, 2, 2, 2, 3, -1], 7)
    return world_of(EpochClusters(day, renumbered(night, [1, 2, 0, 3]), epoch, 10))


def run(
    head: LossHead, day: list[int], night: list[int], epoch: int = 1
) -> tuple[torch.Tensor, BatchFeatures]:
    clusters, memory, batch = world(day, night, epoch)
    head.begin_epoch(clusters, memory)
    head.matching = head.assignment
    return head(batch, memory), batch
