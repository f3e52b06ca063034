"""The candidates of each row in a k-NN search, found by one process or by several together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby, pairwise
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._jit import map_rows, side_by_side
from ._filter import Filter
from ._knn_kernels import complete, feed_columns, feed_rows, finish, rerank
from ._product import full_precision

Progress = Callable[[int, int], None]

SPARE, ROOM = 38, 22
"""Candidates kept beyond k, and places for new ones. Where rounding leaves more, the row is searched once more."""

_CHUNK = 256
"""Rows without a proof that one thread searches at a time."""


class Neighbours(NamedTuple):
    """The k-NN table. Each row counts itself as a neighbour.

    Attributes:
        indices: ``(N, k)`` int32, nearest first, equal distances in index order.
        distances: ``(N, k)`` float32, squared Euclidean; ``None`` where only the order is known.
    """

    indices: NDArray[np.int32]
    distances: NDArray[np.float32] | None = None


class Peers(Protocol):
    """Processes that search together: all have the same rows and ask for the same tables in the same order."""

    rank: int
    count: int

    def exchange(self, parts: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """``parts[r]`` goes to process ``r``; returns what each process has for this one. Equal but for axis 0."""


class Candidates:
    """What may be among the ``k`` nearest of the first ``num`` rows of ``rounded``, as the loops keep it.

    With ``peers`` each process multiplies its share of the pairs of blocks, and then has all candidates of its share
    of the rows. That is as good as one search: what a process has left out is proven to be no neighbour, or is counted
    in ``lost``, of which a row's smallest value holds.
    """

    def __init__(self, rounded: Filter, num: int, k: int, peers: Peers | None = None) -> None:
        self.rounded, self.num, self.k, self.peers = rounded, num, k, peers
        self.rows = range(num)
        self._keep(np.empty((num, k + SPARE + ROOM), dtype=np.int64))

    def _keep(self, keys: NDArray[np.int64]) -> None:
        self.keys = keys
        self.used = np.zeros(self.num, dtype=np.int64)
        self.limits, self.lost = np.full((2, self.num), np.inf, dtype=np.float32)
        self.kept = (self.k, self.k + SPARE, keys, self.used, self.limits, self.lost)

    def search_all(self, block: int, progress: Progress | None) -> None:
        """Offer every row to every other one; the product of two different blocks serves both."""
        rank, count = (0, 1) if self.peers is None else (self.peers.rank, self.peers.count)
        starts = range(0, self.num, block)
        # Near rows lie together: after the blocks with themselves there is little left to be found.
        pairs = [(start, start) for start in starts]
        pairs += [
            (start, starts[c - d]) for c, start in enumerate(starts) for d in steps_back(c, len(starts))
        ]
        self._search(pairs[rank::count], block, self.num, progress)
        if self.peers is not None:
            self._bring_together(self.peers)

    def search_across(self, block: int, progress: Progress | None) -> None:
        """Offer the rows after ``num`` to those before."""
        end, rows = self.rounded.bounds.shape[1], range(0, self.num, block)
        columns = range(self.num, end, block)
        # each block of columns begins with other rows, so that few threads wait for each other
        pairs = [
            (col0, rows[(r - c) % len(rows)]) for c, col0 in enumerate(columns) for r in range(len(rows))
        ]
        self._search(pairs, block, end, progress)

    def _search(self, pairs: list[tuple[int, int]], block: int, end: int, progress: Progress | None) -> None:
        """Offer the columns from ``col0`` to the rows from ``row0`` and, where they are rows, too, the reverse."""
        state = (self.rounded.bounds, self.rounded.rooms(), *self.kept)
        locks = {
            start: Lock() for start in range(0, self.num, block)
        }  # whoever offers to rows has them alone

        def offer(col0: int, rows: list[int]) -> int:
            multiply = self.rounded.start(slice(col0, min(col0 + block, end)))
            for row0 in rows:
                product = multiply(slice(row0, min(row0 + block, self.num)))
                with locks[row0]:
                    feed_rows(product, row0, col0, *state, 0, product.shape[0])
                if row0 != col0 < self.num:
                    with locks[col0]:
                        feed_columns(product, row0, col0, *state, 0, product.shape[1])
            return len(rows)

        groups = groupby(pairs, key=lambda pair: (pair[0], pair[0] == pair[1]))
        tasks = [(col0, [row0 for _, row0 in some]) for (col0, _), some in groups]
        done = 0

        def seen(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress(done, len(pairs))

        with full_precision(cuda=False):  # a setting of the process, which no thread may change under another
            side_by_side(offer, tasks, seen)

    def _bring_together(self, peers: Peers) -> None:
        """From a share of the pairs of all rows to all pairs of a share of the rows."""
        spans = shares(self.num, peers)
        own = spans[peers.rank]
        keys, used, lost = (
            peers.exchange([array[span.start : span.stop] for span in spans])
            for array in (self.keys, self.used, self.lost)
        )
        width = self.keys.shape[1]
        filled = np.concatenate([np.arange(width) < one[:, None] for one in used], axis=1)
        every = np.where(filled, np.concatenate(keys, axis=1), np.iinfo(np.int64).max)
        every.sort(axis=1)  # those that are filled come first
        self._keep(
            np.empty((self.num, width * peers.count), dtype=np.int64)
        )  # only touched pages take memory
        self.rows = own
        self.keys[own.start : own.stop] = every
        self.used[own.start : own.stop] = np.sum(used, axis=0)
        self.lost[own.start : own.stop] = np.min(lost, axis=0)

    def table(self, matrix: Tensor, columns: range, block: int) -> Neighbours:
        """The table by true distances; rows without a proof are searched once more among rows ``columns``."""
        first, count, rounded = self.rows.start, len(self.rows), self.rounded
        proven = np.empty(self.num, dtype=bool)
        state = (rounded.bounds, rounded.tiny, *self.kept, proven)
        map_rows(lambda start, stop: finish(*state, first + start, first + stop), count, chunk=4096)
        indices, distances = np.empty((self.num, self.k), np.int32), np.empty((self.num, self.k), np.float32)
        tables = indices, distances
        # consecutive rows with the same neighbours find them in the processor's cache
        nearest = self.keys[first : self.rows.stop, 0] & 0x7FFFFFFF
        order = np.argsort(nearest, kind="stable") + first
        work = partial(rerank, matrix.numpy(), self.keys, self.used, rounded.order, order, *tables)
        map_rows(work, count, chunk=512)
        unproven = np.flatnonzero(~proven[first : self.rows.stop]) + first
        self._complete(unproven, matrix, columns, tables, block)
        own = slice(first, self.rows.stop)
        found = Neighbours(indices[own], distances[own])
        found = found if self.peers is None else whole_table(found, self.peers)
        back = np.argsort(rounded.order[: self.num])
        assert found.distances is not None
        return Neighbours(found.indices[back], found.distances[back])

    def _complete(
        self,
        rows: NDArray[np.int64],
        matrix: Tensor,
        columns: range,
        tables: tuple[NDArray[np.int32], NDArray[np.float32]],
        block: int,
    ) -> None:
        """Make some rows of ``tables`` exact; ``k`` different neighbours of each, any of them, are there."""
        rounded = self.rounded

        def complete_some(some: NDArray[np.int64]) -> None:
            for col0 in range(columns.start, columns.stop, block):
                product = rounded.start(slice(col0, min(col0 + block, columns.stop)))(torch.from_numpy(some))
                state = (product, matrix.numpy(), some, col0, rounded.bounds, rounded.unit, rounded.order)
                complete(*state, *tables, 0, len(some))

        tasks = [(rows[start : start + _CHUNK],) for start in range(0, len(rows), _CHUNK)]
        with full_precision(cuda=False):
            side_by_side(complete_some, tasks, lambda _: None)


def steps_back(place: int, count: int) -> range:
    """How far back in a ring of ``count`` the partners of ``place`` are: each pair comes once, all have as many."""
    return range(1, count // 2 + (count % 2 == 1 or place < count // 2))


def shares(num: int, peers: Peers) -> list[range]:
    """Consecutive rows for each process, as equal as possible."""
    ends = np.linspace(0, num, peers.count + 1).astype(int).tolist()
    return [range(start, stop) for start, stop in pairwise(ends)]


def whole_table(own: Neighbours, peers: Peers) -> Neighbours:
    """The tables of all processes, one below the other."""
    indices, distances = own
    assert distances is not None
    parts = (peers.exchange([one] * peers.count) for one in (indices, distances))
    return Neighbours(*map(np.concatenate, parts))
