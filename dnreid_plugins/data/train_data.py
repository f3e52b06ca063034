"""The unlabelled training images of both domains, with their sampler and loaders."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.utils import comm
from torch import Tensor

from ..functional.types import Domain, Epoch, TrainImages
from .dataset import DomainDataset
from .items import DomainItem, domain_of
from .loaders import build_inference_loader, build_train_loader
from .samplers import CrossDomainIdentitySampler
from .transforms import view_steps

logger = logging.getLogger(__name__)


@dataclass
class TrainData:
    """Training images in canonical (sorted) order.

    Attributes:
        items: the images.
        images: what label sources may know about them.
        sampler: draws the batches once it has labels.
        loader: loads the batches.
        inference_loader: all images in canonical order with the test transform.
    """

    items: list[DomainItem]
    images: TrainImages
    sampler: CrossDomainIdentitySampler
    loader: Any
    inference_loader: Any

    def __len__(self) -> int:
        return len(self.items)

    def use(self, epoch: Epoch, *, batches_done: int, paired: bool) -> Tensor:
        """Draw the batches of ``epoch`` from now on, the first ``batches_done`` left out; returns labels ``(N,)``.

        ``paired``: matched day and night clusters come into the same batch.
        """
        labels = torch.full((len(self),), -1, dtype=torch.int64)
        for domain in Domain:
            labels[epoch[domain].indices] = epoch[domain].labels
        self.sampler.set_epoch(epoch.number - 1)
        self.sampler.set_labels(labels.numpy(), partners=epoch.matching if paired else None)
        self.sampler.start = batches_done
        return labels


def build_train_data(cfg: Any) -> TrainData:
    """Read the sets of ``DATASETS.NAMES`` and build sampler and loaders.

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
    per_domain = cfg.SOLVER.IMS_PER_BATCH // len(Domain)
    num_instances = cfg.DATALOADER.NUM_INSTANCE
    if num_instances < 1 or cfg.SOLVER.IMS_PER_BATCH % (len(Domain) * num_instances) != 0:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; it must be a multiple of 2 domains x "
            f"DATALOADER.NUM_INSTANCE ({num_instances}), which is at least 1."
        )
    iterations = cfg.DATALOADER.ITERS_PER_EPOCH or max(len(items) // cfg.SOLVER.IMS_PER_BATCH, 1)
    sampler = CrossDomainIdentitySampler(
        None,
        domains.numpy(),
        num_clusters=per_domain // num_instances,
        num_instances=num_instances,
        iterations=iterations,
        seed=cfg.SEED,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        views=(len(view_steps(cfg, Domain.DAY)), len(view_steps(cfg, Domain.NIGHT))),
    )
    loader = build_train_loader(cfg, items, sampler)
    images = loader.dataset
    assert isinstance(images, DomainDataset)
    return TrainData(
        items,
        TrainImages(domains, torch.from_numpy(images.camids), _true_ids(items)),
        sampler,
        loader,
        build_inference_loader(cfg, items, rank=comm.get_rank(), world_size=comm.get_world_size()),
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
