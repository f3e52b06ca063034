"""fast-reid's own training loader made reproducible: its batches are a function of (seed, rank, iteration)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from ..runtime.generators import PrivateGenerators, image_seeds
from .dataset import SeededSamples
from .loaders import CpuGpuLoader, SentenceLoader
from .samplers import SeededIndex
from .transforms import DomainTransform

logger = logging.getLogger(__name__)


class SampleStream(Sampler[list[SeededIndex]]):
    """Batch sampler: the batches of another one, from any iteration on, each image with its own seed.

    fast-reid's samplers are endless, start anew with every iterator and draw from the global generators. Here they
    draw from their own generators seeded by ``seed``, so that every iterator gives the same batches whatever else is
    drawn; the first ``start`` batches are drawn and dropped without reading an image.

    Each entry is ``(index, seed)``; the 63-bit seed is a function of (``seed``, iteration, place in the batches of all
    ranks), so augmentation does not depend on workers or earlier batches.

    Args:
        batches: what to draw from. A sampler in it that has a seed (all of fast-reid's) gets one derived from
            ``seed``: its own was drawn from a global generator, which reading the data may have changed.
        seed: of the run.
        rank, world_size: this process and their number; a sampler that distributes batches over processes (all of
            fast-reid's) still does so.

    Raises:
        ValueError: ``rank`` or ``seed`` is out of range.
    """

    def __init__(self, batches: BatchSampler, *, seed: int, rank: int = 0, world_size: int = 1) -> None:
        if not 0 <= rank < world_size or seed < 0:
            raise ValueError(
                f"rank {rank} of {world_size}, seed {seed}; need 0 <= rank < world_size and seed >= 0"
            )
        self.batches, self.seed, self.rank, self.world_size = batches, seed, rank, world_size
        #: Iterations that were already trained before a resume; the next iterator begins after them.
        self.start = 0
        if hasattr(batches.sampler, "_seed"):
            batches.sampler._seed = int(np.random.SeedSequence(seed).generate_state(1)[0])

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        # The same in all processes: each takes its part of one shared stream.
        own = PrivateGenerators(int(np.random.SeedSequence(self.seed).generate_state(1)[0]))
        start = self.start
        batches = iter(self.batches)
        with own.in_force():
            next(itertools.islice(batches, start, start), None)
        for iteration in itertools.count(start):
            with own.in_force():
                batch = next(batches, None)
            if batch is None:
                return
            yield [(int(i), seed) for i, seed in zip(batch, self._seeds(iteration).tolist())]

    def _seeds(self, iteration: int) -> npt.NDArray[np.uint64]:
        """63-bit seeds of this process's batch."""
        size = self.batches.batch_size
        seeds = image_seeds((self.seed, iteration), self.world_size * size)
        return seeds[self.rank * size : (self.rank + 1) * size]


class SeededDataset(SeededSamples):
    """Any data set with integer keys as `SeededSamples`. Other attributes are those of the wrapped data set."""

    def __init__(self, inner: Dataset[Any]) -> None:
        self.inner = inner
        transform = getattr(inner, "transform", None)
        self._pipelines = DomainTransform(transform, transform)  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":  # not set yet while it is copied to a worker
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)  # type: ignore[arg-type]

    def begin_batch(self) -> None:
        self._pipelines.begin_batch()

    def read(self, index: int, view: int = 0) -> Any:
        return self.inner[index]

    def complaint(self, index: int) -> str:
        return f"training sample {index} of {type(self.inner).__name__} cannot be loaded"


def repeatable(loader: Any, *, seed: int, rank: int = 0, world_size: int = 1) -> Any:
    """``loader`` of fast-reid's ``build_reid_train_loader`` with bit-identical batches in every run of this ``seed``.

    Data set, sampler, workers and collation stay; any number of workers gives the same batches. A loader of another
    type, which a script may have built itself, is returned unchanged.
    """
    if not isinstance(loader, CpuGpuLoader) or not isinstance(loader.batch_sampler, BatchSampler):
        return loader
    stream = SampleStream(loader.batch_sampler, seed=seed, rank=rank, world_size=world_size)
    return SentenceLoader(
        SeededDataset(loader.dataset),
        batch_sampler=stream,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        generator=torch.Generator(),  # else every iterator would draw from the global generator
    )


def begin_at(loader: Any, iteration: int) -> None:
    """The next iterator of a `repeatable` loader begins with the batch of ``iteration`` (counted from 0)."""
    stream = loader.batch_sampler if isinstance(loader, DataLoader) else None
    if isinstance(stream, SampleStream):
        stream.start = iteration
    elif iteration > 0:
        logger.warning(
            "The training loader is a %s that the script built itself, so its batches begin anew at iteration "
            "%d; build it with build_reid_train_loader for a resume bit for bit.",
            type(loader).__name__,
            iteration,
        )
