"""Order of the clusters of an epoch: each domain independently, or matched pairs together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..functional.types import Assignment, Domain

Clusters = npt.NDArray[np.int64]


class ClusterStream(Protocol):
    """Gives the clusters of the batches, one batch after another."""

    def next_batch(self) -> dict[Domain, Clusters]:
        """``(num_clusters,)`` clusters for every domain that has any; day first."""


class Deck:
    """Numbers ``0 .. size-1`` drawn in random order; reshuffled only when all have been drawn.

    One draw of ``hand`` numbers contains none twice as long as ``hand <= size``, also across two shuffles.
    """

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self._rng, self._size = rng, size
        self._rest: list[int] = []

    def deal(self, hand: int) -> list[int]:
        dealt: list[int] = []
        while len(dealt) < hand:
            if not self._rest:
                self._rest = self._rng.permutation(self._size).tolist()
            held = set(dealt) if hand <= self._size else set()
            fresh = [card for card in self._rest if card not in held] if held else self._rest
            fresh = fresh[: hand - len(dealt)]
            taken = set(fresh)
            self._rest = [card for card in self._rest if card not in taken]
            dealt += fresh
        return dealt


class SeparateStream:
    """Each domain's clusters from its own `Deck`."""

    def __init__(self, rng: np.random.Generator, counts: Mapping[Domain, int], num_clusters: int) -> None:
        self._decks = {domain: Deck(rng, counts[domain]) for domain in sorted(counts)}
        self._num_clusters = num_clusters

    def next_batch(self) -> dict[Domain, Clusters]:
        return {domain: np.array(deck.deal(self._num_clusters)) for domain, deck in self._decks.items()}


class PairedStream:
    """Matched clusters come in pairs.

    A round consists of every matched pair, and of random pairs of the clusters without a partner; the side that has
    fewer of those is filled up with random clusters of its domain. So every cluster of both domains comes at least
    once per round. Empty places in a round's last batch are filled from the next round.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        counts: Mapping[Domain, int],
        num_clusters: int,
        partners: Assignment,
    ) -> None:
        labelled = (counts[Domain.DAY], counts[Domain.NIGHT])
        matched = (partners.day_to_night.numel(), partners.night_to_day.numel())
        if matched != labelled:
            raise ValueError(
                f"the matching covers {matched} (day, night) clusters, the labels {labelled}; match those"
            )
        self._rng, self._counts, self._num_clusters = rng, counts, num_clusters
        self._pairs = partners.pairs().numpy()
        self._single = {
            domain: np.setdiff1d(np.arange(counts[domain]), self._pairs[:, int(domain)]) for domain in Domain
        }
        self._rest = np.empty((0, 2), dtype=np.int64)

    def next_batch(self) -> dict[Domain, Clusters]:
        while len(self._rest) < self._num_clusters:
            self._rest = np.concatenate([self._rest, self._round()])
        batch, self._rest = self._rest[: self._num_clusters], self._rest[self._num_clusters :]
        return {Domain.DAY: batch[:, 0], Domain.NIGHT: batch[:, 1]}

    def _round(self) -> npt.NDArray[np.int64]:
        longest = max(len(single) for single in self._single.values())
        filled = [self._fill(domain, longest) for domain in Domain]
        return self._rng.permutation(np.concatenate([self._pairs, np.stack(filled, axis=1)]))

    def _fill(self, domain: Domain, count: int) -> Clusters:
        single = self._rng.permutation(self._single[domain])
        extra = self._rng.integers(self._counts[domain], size=count - len(single))
        return np.concatenate([single, extra]).astype(np.int64)
