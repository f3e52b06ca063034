"""Batches of clusters of both domains, a function of (seed, epoch) alone."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

from ..functional.types import Assignment, Domain
from ..runtime.generators import image_seeds
from .cluster_stream import ClusterStream, PairedStream, SeparateStream

logger = logging.getLogger(__name__)

#: One entry of a batch: position in the canonical list, seed of the image's augmentation, view if not the plain one.
SeededIndex = tuple[int, int] | tuple[int, int, int]


class CrossDomainIdentitySampler(Sampler[list[SeededIndex]]):
    """Batch sampler: per domain ``num_clusters`` clusters x ``num_instances`` images, day first, then night.

    The stream is a function of ``(seed, epoch)``: other generators have no effect, and the slices of all ranks
    together are the stream of a single process. Within a domain

    * clusters come in random order and none is repeated before all have come; within a batch they differ as long as
      there are enough of them;
    * fewer clusters than ``num_clusters``: they repeat (policy "repeat"), logged;
    * a domain without a cluster is left out and the batch is smaller, logged;
    * a cluster of at least ``num_instances`` images gives different ones; a smaller one gives each of its
      images equally often, up to one;
    * outliers (label -1) are never drawn.

    With ``partners`` (option "paired") a day cluster and its night partner are at the same place of the two parts;
    clusters without a partner are paired at random, anew in every round.

    Each entry is ``(index, seed)``; the 63-bit seed is a function of (sampler seed, epoch, batch, place in
    the *global* batch), so augmentation does not depend on workers or ranks.

    Args:
        labels: ``(N,)`` cluster of each image of the canonical list, numbered per domain; -1 = outlier.
            None: not known yet, call ``set_labels`` before the first batch.
        domains: ``(N,)`` domain of each image.
        num_clusters: clusters per domain in a global batch.
        num_instances: images per cluster.
        iterations: batches per epoch.
        seed: of the run.
        rank, world_size: this process and their number.
        partners: cross-domain matching for paired batches.
        views: number of views of each (day, night) image in a batch, each with its own seed: all images of a domain as
            view 0, then all as view 1 ...
        stream: number of the stream; streams of one run draw different batches.

    Raises:
        ValueError: a number is below 1, ``num_clusters`` is not a multiple of ``world_size``, shapes differ,
            or neither domain has a cluster.
    """

    def __init__(
        self,
        labels: torch.Tensor | npt.ArrayLike | None,
        domains: torch.Tensor | npt.ArrayLike,
        *,
        num_clusters: int,
        num_instances: int,
        iterations: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        partners: Assignment | None = None,
        views: tuple[int, int] = (1, 1),
        stream: int = 0,
    ) -> None:
        for name, value in (
            ("num_clusters", num_clusters),
            ("num_instances", num_instances),
            ("iterations", iterations),
            ("world_size", world_size),
        ):
            if value < 1:
                raise ValueError(f"{name} is {value}; a batch needs at least 1")
        if num_clusters % world_size:
            raise ValueError(
                f"{num_clusters} clusters per domain cannot be divided among {world_size} processes; "
                "make the clusters per batch a multiple of the number of processes"
            )
        if not 0 <= rank < world_size or seed < 0:
            raise ValueError(
                f"rank {rank} of {world_size}, seed {seed}; need 0 <= rank < world_size and seed >= 0"
            )
        self.num_clusters, self.num_instances, self.iterations = num_clusters, num_instances, iterations
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.views = views
        self._entropy = (stream,) if stream else ()
        self.domains = _to_array(domains)
        self.epoch = 0
        #: Batches of this epoch that were already used before a resume; they are drawn and dropped.
        self.start = 0
        self._members: dict[Domain, Sequence[npt.NDArray[np.int64]]] = {}
        self._partners: Assignment | None = None
        if labels is not None:
            self.set_labels(labels, partners)

    def set_labels(self, labels: torch.Tensor | npt.ArrayLike, partners: Assignment | None = None) -> None:
        """Set the pseudo labels ``(N,)`` of a new epoch; the next iterator uses them."""
        array = _to_array(labels)
        if array.shape != self.domains.shape or array.ndim != 1:
            raise ValueError(f"labels {array.shape} and domains {self.domains.shape} must both be (N,)")
        self._members = {domain: _members_of(array, self.domains == domain) for domain in Domain}
        counts = {domain: len(self._members[domain]) for domain in Domain}
        if not any(counts.values()):
            raise ValueError(
                "neither domain has a cluster, there is nothing to draw; raise CLUSTER.EPS or lower "
                "CLUSTER.MIN_SAMPLES"
            )
        for domain, count in counts.items():
            if count == 0 and (self.domains == domain).any():
                logger.warning("no %s cluster: this domain is left out of the batches", domain.word)
            elif 0 < count < self.num_clusters:
                text = "%d %s clusters for %d places: they repeat"
                logger.warning(text, count, domain.word if self.domains.any() else "joint", self.num_clusters)
        self._partners = partners

    def set_epoch(self, epoch: int) -> None:
        """Start another epoch at its first batch."""
        self.epoch, self.start = epoch, 0

    def __len__(self) -> int:
        return max(self.iterations - self.start, 0)

    def __iter__(self) -> Iterator[list[SeededIndex]]:
        if not self._members:
            raise ValueError("the sampler has no labels yet; call set_labels before the first batch")
        rng = np.random.default_rng(np.random.SeedSequence((self.seed, self.epoch, *self._entropy)))
        stream = self._stream(rng)
        share = self.num_clusters // self.world_size
        mine = slice(self.rank * share, (self.rank + 1) * share)
        start = self.start
        for batch in range(self.iterations):
            drawn = {  # per domain that has clusters: (clusters per batch, K)
                domain: np.stack([_draw(rng, self._members[domain][c], self.num_instances) for c in clusters])
                for domain, clusters in stream.next_batch().items()
            }
            if batch >= start:
                yield self._entries(batch, drawn, mine)

    def _entries(
        self, batch: int, drawn: dict[Domain, npt.NDArray[np.int64]], mine: slice
    ) -> list[SeededIndex]:
        """This process's part of a global batch: per domain all images as view 0, then as view 1 ..."""
        entries: list[SeededIndex] = []
        for place, (domain, rows) in enumerate(drawn.items()):
            for view in range(self.views[domain]):
                seeds = self._seeds(batch, len(drawn), view)[place, mine].ravel().tolist()
                index = rows[mine].ravel().tolist()
                entries += zip(index, seeds) if view == 0 else zip(index, seeds, [view] * len(index))
        return entries

    def _stream(self, rng: np.random.Generator) -> ClusterStream:
        counts = {domain: len(members) for domain, members in self._members.items() if members}
        if self._partners is not None and len(counts) == 2:
            return PairedStream(rng, counts, self.num_clusters, self._partners)
        return SeparateStream(rng, counts, self.num_clusters)

    def _seeds(self, batch: int, parts: int, view: int) -> npt.NDArray[np.uint64]:
        """63-bit seeds ``(parts, clusters, K)`` of one view of a global batch with ``parts`` domain parts."""
        shape = (parts, self.num_clusters, self.num_instances)
        entropy = (self.seed, self.epoch, batch, *((view,) if view or self._entropy else ()), *self._entropy)
        return image_seeds(entropy, int(np.prod(shape))).reshape(shape)


def _to_array(values: torch.Tensor | npt.ArrayLike) -> npt.NDArray[np.int64]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, dtype=np.int64)


def _members_of(
    labels: npt.NDArray[np.int64], inside: npt.NDArray[np.bool_]
) -> Sequence[npt.NDArray[np.int64]]:
    """Positions of the images of each cluster of one domain; empty clusters are refused."""
    used = np.flatnonzero(inside & (labels >= 0))
    if used.size == 0:
        return []
    order = used[np.argsort(labels[used], kind="stable")]
    found, begins = np.unique(labels[order], return_index=True)
    if found[-1] != found.size - 1:
        raise ValueError(
            f"clusters must be numbered 0 .. C-1 without gaps; got {found.size} up to {found[-1]}"
        )
    return np.split(order, begins[1:])


def _draw(rng: np.random.Generator, members: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """``count`` of ``members``: different ones if there are enough, else each equally often up to one."""
    whole, rest = divmod(count, members.size)
    return np.concatenate([*([members] * whole), rng.permutation(members)[:rest]])
