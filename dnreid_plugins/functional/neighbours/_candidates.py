"""The candidates of each row in a k-NN search, found by one process or by several together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._jit import map_rows
from ._filter import Filter
from ._knn_kernels import complete, feed_columns, feed_rows, finish, rerank

Progress = Callable[[int, int], None]

SPARE, ROOM = 38, 22
"""Candidates kept beyond k, and places for new ones. Where rounding leaves more, the row is searched once more."""

_CHUNK = 256
"""Rows or columns of a product block that one thread scans at a time."""


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
        state = (self.rounded.bounds, self.rounded.rooms(), *self.kept)
        rank, count = (0, 1) if self.peers is None else (self.peers.rank, self.peers.count)
        blocks = range(0, self.num, block)
        pairs = [(col0, row0) for col0 in blocks for row0 in range(0, col0 + 1, block)][rank::count]
        done = 0
        for col0, of_columns in groupby(pairs, key=itemgetter(0)):
            multiply = self.rounded.start(slice(col0, min(col0 + block, self.num)))
            for _, row0 in of_columns:
                product = multiply(slice(row0, min(row0 + block, self.num)))
                map_rows(partial(feed_rows, product, row0, col0, *state), product.shape[0], chunk=_CHUNK)
                if row0 != col0:
                    work = partial(feed_columns, product, row0, col0, *state)
                    map_rows(work, product.shape[1], chunk=_CHUNK)
                done += 1
                if progress is not None:
                    progress(done, len(pairs))
        if self.peers is not None:
            self._bring_together(self.peers)

    def search_across(self, block: int, progress: Progress | None) -> None:
        """Offer the rows after ``num`` to those before."""
        state = (self.rounded.bounds, self.rounded.rooms(), *self.kept)
        end = self.rounded.bounds.shape[1]
        columns = range(self.num, end, block)
        for done, col0 in enumerate(columns, start=1):
            multiply = self.rounded.start(slice(col0, min(col0 + block, end)))
            for row0 in range(0, self.num, block):
                product = multiply(slice(row0, min(row0 + block, self.num)))
                map_rows(partial(feed_rows, product, row0, col0, *state), product.shape[0], chunk=_CHUNK)
            if progress is not None:
                progress(done, len(columns))

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
        map_rows(partial(rerank, matrix.numpy(), self.keys, self.used, order, *tables), count, chunk=512)
        unproven = np.flatnonzero(~proven[first : self.rows.stop]) + first
        self._complete(unproven, matrix, columns, tables, block)
        own = slice(first, self.rows.stop)
        found = Neighbours(indices[own], distances[own])
        return found if self.peers is None else whole_table(found, self.peers)

    def _complete(
        self,
        rows: NDArray[np.int64],
        matrix: Tensor,
        columns: range,
        tables: tuple[NDArray[np.int32], NDArray[np.float32]],
        block: int,
    ) -> None:
        """Make some rows of ``tables`` exact; ``k`` different neighbours of each, any of them, are there."""
        if len(rows) == 0:
            return
        rounded = self.rounded
        for col0 in range(columns.start, columns.stop, block):
            multiply = rounded.start(slice(col0, min(col0 + block, columns.stop)))
            for some in np.split(rows, range(block, len(rows), block)):
                product = multiply(torch.from_numpy(some))
                state = (product, matrix.numpy(), some, col0, rounded.bounds, rounded.unit, *tables)
                map_rows(partial(complete, *state), len(some), chunk=64)


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
