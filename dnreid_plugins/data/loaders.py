"""From items on disk to batches: the data set, loaders for training and inference, fast-reid's loader."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from fastreid.config import CfgNode
from fastreid.data import build_reid_test_loader
from fastreid.utils import comm
from torch.utils.data import DataLoader, Dataset, Sampler

from ..runtime.sentences import lost_worker
from .cache import PixelStore
from .collate import LoadFailure, collate
from .dataset import DomainDataset
from .domain_images import DomainImages
from .errors import DataError
from .samplers import SeededIndex
from .transforms import DomainTransform, build_domain_transform

logger = logging.getLogger(__name__)

__all__ = [
    "CpuGpuLoader",
    "DomainDataset",
    "InferenceSlice",
    "SentenceLoader",
    "build_inference_loader",
    "build_test_loader",
    "build_train_loader",
    "collate",
]


class SentenceLoader(DataLoader[Any]):
    """torch's loader; errors in a worker are raised here as one :class:`DataError` sentence.

    ``persistent_workers`` is on whenever there are workers: a new epoch costs no new processes. Every iterator starts
    the batch sampler anew, so labels that have changed since take effect.
    """

    def __init__(self, dataset: Dataset[Any], *, num_workers: int = 0, **kwargs: Any) -> None:
        kwargs.setdefault("collate_fn", collate)
        kwargs.setdefault("persistent_workers", num_workers > 0)
        kwargs["pin_memory"] = torch.cuda.is_available()
        super().__init__(dataset, num_workers=num_workers, **kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            for batch in self.batches():
                if isinstance(batch, LoadFailure):
                    if batch.traceback:
                        logger.debug("%s\n%s", batch.message, batch.traceback)
                    raise DataError(batch.message)
                yield batch
        except RuntimeError as error:
            lost = lost_worker(error)
            raise (error if lost is None else DataError(str(lost))) from None
        finally:
            if (pixels := getattr(self.dataset, "pixels", None)) is not None:
                pixels.settle()

    def batches(self) -> Iterator[Any]:
        """Batches, a `LoadFailure` in place of one that cannot be loaded."""
        return super().__iter__()


class InferenceLoader(SentenceLoader):
    """Starts its workers anew each time, and none once all images are kept: copying them costs less than a worker."""

    def __init__(self, dataset: DomainDataset, **kwargs: Any) -> None:
        super().__init__(dataset, persistent_workers=False, **kwargs)

    def batches(self) -> Iterator[Any]:
        pixels = self.dataset.pixels  # type: ignore[attr-defined]
        if pixels is None or not pixels.complete:
            return super().batches()
        return (collate(self.dataset.__getitems__(places)) for places in self.batch_sampler)  # type: ignore[attr-defined, union-attr]


class CpuGpuLoader(SentenceLoader):
    """Replaces fast-reid's ``DataLoaderX``: same arguments, with or without CUDA, without its extra thread.

    Batches stay on the CPU, in pinned memory if CUDA is available: a loader cannot know ``MODEL.DEVICE``, which
    may be "cpu" on a machine with CUDA. Our trainer moves them to the model's device; for every other loop
    (fast-reid's own trainers, precise batch norm, evaluation) ``preprocess_image`` does so (``compat.py``).
    Images with known domains are `DomainImages`, since fast-reid's tools pass on nothing but the images.
    """

    def __init__(self, local_rank: int, **kwargs: Any) -> None:
        kwargs.pop("pin_memory", None)
        super().__init__(**kwargs)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, dict) and "domains" in batch:
                batch["images"] = DomainImages.of(batch["images"], batch["domains"])
            yield batch


class InferenceSlice(Sampler[list[int]]):
    """Batches of positions ``begin .. end-1``: one process's part of a canonical list."""

    def __init__(self, size: int, batch_size: int, *, rank: int = 0, world_size: int = 1) -> None:
        share = -(-size // world_size)
        self.begin, self.end = min(rank * share, size), min((rank + 1) * share, size)
        self.batch_size = max(batch_size, 1)

    def __len__(self) -> int:
        return -(-(self.end - self.begin) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for start in range(self.begin, self.end, self.batch_size):
            yield list(range(start, min(start + self.batch_size, self.end)))


def build_train_loader(
    cfg: CfgNode,
    items: Sequence[tuple[Any, ...]],
    batch_sampler: Sampler[list[SeededIndex]],
    *,
    transform: DomainTransform | None = None,
    reveal_ids: bool = False,
    pixels: PixelStore | None = None,
) -> SentenceLoader:
    """Loader that starts ``batch_sampler`` anew each epoch; ``targets`` are -1 unless ``reveal_ids``."""
    transform = transform or build_domain_transform(cfg, is_train=True)
    return SentenceLoader(
        DomainDataset(items, transform, reveal_ids=reveal_ids, pixels=pixels),
        batch_sampler=batch_sampler,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        generator=torch.Generator(),  # else every iterator would draw from the global generator
    )


def build_inference_loader(
    cfg: CfgNode,
    items: Sequence[tuple[Any, ...]],
    transform: DomainTransform | None = None,
    *,
    rank: int = 0,
    world_size: int = 1,
    pixels: PixelStore | None = None,
) -> InferenceLoader:
    """Loader over ``items`` in canonical order with test transforms; each process gets its consecutive share.

    ``TEST.IMS_PER_BATCH`` counts the images of all processes together, as in fast-reid.
    """
    transform = transform or build_domain_transform(cfg, is_train=False)
    batch_size = cfg.TEST.IMS_PER_BATCH // world_size
    return InferenceLoader(
        DomainDataset(items, transform, pixels=pixels),
        batch_sampler=InferenceSlice(len(items), batch_size, rank=rank, world_size=world_size),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        generator=torch.Generator(),
    )


def build_test_loader(cfg: CfgNode, name: str, dataset: Any) -> tuple[Any, int]:
    """Loader for fast-reid's evaluation loop, queries before gallery, and the number of queries.

    The batches of a day/night set contain the domain of each image and its index; fast-reid's own data sets get
    fast-reid's loader.
    """
    if not hasattr(dataset, "protocol"):
        return build_reid_test_loader(cfg, dataset_name=name)
    items = [*dataset.query, *dataset.gallery]
    loader = build_inference_loader(cfg, items, rank=comm.get_rank(), world_size=comm.get_world_size())
    return loader, len(dataset.query)
