"""The unlabelled training images of both domains, with their samplers and loaders."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.utils import comm
from torch import Tensor

from ..functional.types import Assignment, Domain, Epoch, StreamName, TrainImages
from .cache import open_pixels
from .dataset import DomainDataset
from .items import DomainItem, domain_of
from .loaders import build_inference_loader, build_train_loader
from .samplers import CrossDomainIdentitySampler
from .transforms import build_domain_transform, view_steps

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchStream:
    """One kind of batch: the sampler draws once it has labels, the loader loads."""

    sampler: CrossDomainIdentitySampler
    loader: Any


@dataclass
class TrainData:
    """Training images in canonical (sorted) order.

    Attributes:
        items: the images.
        images: what label sources may know about them.
        streams: the batches of an iteration by name.
        inference_loader: all images in canonical order with the test transform.
    """

    items: list[DomainItem]
    images: TrainImages
    streams: dict[StreamName, BatchStream]
    inference_loader: Any

    def __len__(self) -> int:
        return len(self.items)

    @property
    def loaders(self) -> dict[StreamName, Any]:
        return {name: stream.loader for name, stream in self.streams.items()}

    @property
    def first_loader(self) -> Any:
        return next(iter(self.streams.values())).loader

    @property
    def iterations(self) -> int:
        """Iterations per epoch."""
        return next(iter(self.streams.values())).sampler.iterations

    def use(self, epoch: Epoch, *, batches_done: int, paired: bool, streams: Sequence[StreamName]) -> Tensor:
        """Draw the batches of ``epoch`` from now on, the first ``batches_done`` left out; returns labels ``(N,)``.

        ``paired``: matched day and night clusters come into the same batch. ``streams``: those of this epoch.
        """
        labels = torch.full((len(self),), -1, dtype=torch.int64)
        for domain in Domain:
            labels[epoch[domain].indices] = epoch[domain].labels
        for name in streams:
            sampler = self.streams[name].sampler
            sampler.set_epoch(epoch.number - 1)
            if name == "domains":
                sampler.set_labels(labels.numpy(), partners=epoch.matching if paired else None)
            else:
                sampler.set_labels(*joint_labels(epoch, len(self), whole=name == "union"))
            sampler.start = batches_done
        return labels


def joint_labels(epoch: Epoch, count: int, *, whole: bool) -> tuple[Tensor, Assignment | None]:
    """Labels ``(count,)`` for a sampler: the clusters "joint" (``whole``), or only those with images of both domains.

    The latter are numbered ``0 .. M-1``, and each goes with itself.
    """
    labels = epoch.targets("joint", torch.arange(count))
    if whole:
        return labels, None
    mixed = epoch.mixed()
    number = torch.where(mixed, mixed.cumsum(0) - 1, -1)
    same = torch.arange(int(mixed.sum()))
    partners = Assignment(same, same, torch.ones(len(same)), torch.ones(len(same)))
    return torch.where(labels >= 0, number[labels.clamp(min=0)], -1), partners


def build_train_data(cfg: Any) -> TrainData:
    """Read the sets of ``DATASETS.NAMES`` and build samplers and loaders.

    Raises:
        ValueError: a domain has no image or the batch shape does not fit.
    """
    items = sorted(item for name in cfg.DATASETS.NAMES for item in read_dataset(name).train)
    domains = torch.tensor([int(domain_of(item)) for item in items], dtype=torch.int64)
    for domain in Domain:
        if not bool((domains == domain).any()):
            raise ValueError(
                f"DATASETS.NAMES {tuple(cfg.DATASETS.NAMES)} has no {domain.name.lower()} image for training; "
                "both domains are needed."
            )
    train, test = (build_domain_transform(cfg, is_train=is_train) for is_train in (True, False))
    train_pixels, test_pixels = open_pixels(cfg, items, train, test)
    streams = {
        name: BatchStream(
            sampler := _sampler(cfg, place, name, domains),
            build_train_loader(cfg, items, sampler, transform=train, pixels=train_pixels),
        )
        for place, name in enumerate(cfg.DATALOADER.STREAMS)
    }
    images = next(iter(streams.values())).loader.dataset
    assert isinstance(images, DomainDataset)
    return TrainData(
        items,
        TrainImages(
            domains, torch.from_numpy(images.camids), _true_ids(items), tuple(item.path for item in items)
        ),
        streams,
        build_inference_loader(
            cfg, items, test, rank=comm.get_rank(), world_size=comm.get_world_size(), pixels=test_pixels
        ),
    )


def _sampler(cfg: Any, place: int, name: StreamName, domains: Tensor) -> CrossDomainIdentitySampler:
    batch, num_instances = cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_INSTANCE
    if num_instances < 1 or batch % (len(Domain) * num_instances) != 0:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {batch}; it must be a multiple of 2 domains x "
            f"DATALOADER.NUM_INSTANCE ({num_instances}), which is at least 1."
        )
    # To the sampler the clusters of a union are of one kind.
    union = name == "union"
    views = (len(view_steps(cfg, Domain.DAY)), len(view_steps(cfg, Domain.NIGHT)))
    return CrossDomainIdentitySampler(
        None,
        torch.zeros_like(domains) if union else domains,
        num_clusters=batch // num_instances if union else batch // len(Domain) // num_instances,
        num_instances=num_instances,
        iterations=cfg.DATALOADER.ITERS_PER_EPOCH or max(len(domains) // batch, 1),
        seed=cfg.SEED,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        views=(min(views), 1) if union else views,
        stream=place,
    )


def read_dataset(name: str) -> Any:
    """One registered data set.

    Raises:
        ValueError: the name is unknown.
    """
    known = sorted(DATASET_REGISTRY._obj_map)
    if name not in known:
        raise ValueError(f"DATASETS names {name!r}, which is not registered; known sets: {known}.")
    return DATASET_REGISTRY.get(name)(root=os.environ.get("FASTREID_DATASETS", "datasets"))


def scored_datasets(cfg: Any) -> dict[str, Any]:
    """The sets of ``DATASETS.TESTS`` by name; sets without identities are left out, with a line in the log."""
    found = {name: read_dataset(name) for name in cfg.DATASETS.TESTS}
    for name, dataset in list(found.items()):
        if getattr(dataset, "protocol", True) is None:
            logger.info("%s has no identities, so nothing is scored on it.", name)
            del found[name]
    return found


def _true_ids(items: list[DomainItem]) -> np.ndarray | None:
    if any(item.pid == -1 or str(item.pid).endswith("_-1") for item in items):
        return None
    return np.unique([str(item.pid) for item in items], return_inverse=True)[1].astype(np.int64)
