"""Compiled loops of the exact k-NN search: the nearest candidates of each row, and their final order.

Each row collects candidates in a buffer of twice the wanted width. A candidate is one integer, the bits of
its distance above its index, so that integers compare like (distance, index). A full buffer is reduced to its
smaller half, which tightens the limit that later candidates must pass.
"""

from __future__ import annotations

import numpy as np

from .._jit import Array, jit, jit_vector_sum

_LANES = 32
"""Columns tested at once. A constant, so that one test compiles to a few vector instructions."""


@jit
def _key(distance: float, index: int) -> np.int64:
    """Not negative, so that the bits of a float32 compare like the number."""
    return (np.int64(np.float32(distance).view(np.int32)) << 32) | np.int64(index)


@jit
def cut(keys: Array, width: int) -> np.float32:
    """Move the ``width`` smallest keys to the front; the distance of the largest of them."""
    keys[:] = np.partition(keys, width - 1)
    return np.int32(keys[width - 1] >> 32).view(np.float32)


@jit_vector_sum
def _any_within(product: Array, norm: float, norms: Array, limits: Array) -> bool:
    """Whether ``norm + norms[c] - 2 * product[c] <= limits[c]`` for some of the first columns."""
    two = np.float32(2)
    hits = np.int32(0)
    for c in range(_LANES):
        hits |= np.int32((norm + norms[c]) - two * product[c] <= limits[c])
    return hits != 0


@jit
def feed_rows(
    product: Array,
    row0: int,
    col0: int,
    norms: Array,
    limits: Array,
    keys: Array,
    used: Array,
    start: int,
    stop: int,
) -> None:
    """Offer every column of rows ``start..stop`` of a product block to those rows."""
    two, zero = np.float32(2), np.float32(0)
    columns = product.shape[1]
    buffer = keys.shape[1]
    limit = np.empty(_LANES, dtype=np.float32)
    for r in range(start, stop):
        i = row0 + r
        norm = norms[i]
        limit[:] = limits[i]
        for first in range(0, columns, _LANES):
            some = product[r, first : first + _LANES]
            theirs = norms[col0 + first : col0 + first + some.shape[0]]
            if some.shape[0] == _LANES and not _any_within(some, norm, theirs, limit):
                continue
            for c in range(some.shape[0]):
                distance = max((norm + theirs[c]) - two * some[c], zero)
                if distance <= limits[i]:
                    keys[i, used[i]] = _key(distance, col0 + first + c)
                    used[i] += 1
                    if used[i] == buffer:
                        used[i] = buffer // 2
                        limits[i] = cut(keys[i], buffer // 2)
                        limit[:] = limits[i]


@jit
def feed_columns(
    product: Array,
    row0: int,
    col0: int,
    norms: Array,
    limits: Array,
    keys: Array,
    used: Array,
    start: int,
    stop: int,
) -> None:
    """Offer every row of a product block to the columns ``start..stop``: the other direction."""
    two, zero = np.float32(2), np.float32(0)
    buffer = keys.shape[1]
    limit = limits[col0 + start : col0 + stop]
    ours = norms[col0 + start : col0 + stop]
    for r in range(product.shape[0]):
        norm = norms[row0 + r]
        some = product[r, start:stop]
        for first in range(0, stop - start, _LANES):
            last = min(first + _LANES, stop - start)
            if last - first == _LANES and not _any_within(
                some[first:last], norm, ours[first:last], limit[first:last]
            ):
                continue
            for c in range(first, last):
                distance = max((norm + ours[c]) - two * some[c], zero)
                if distance <= limit[c]:
                    j = col0 + start + c
                    keys[j, used[j]] = _key(distance, row0 + r)
                    used[j] += 1
                    if used[j] == buffer:
                        used[j] = buffer // 2
                        limit[c] = cut(keys[j], buffer // 2)


@jit
def nearest(keys: Array, used: Array, candidates: Array, start: int, stop: int) -> None:
    """Indices of the best candidates of rows ``start..stop``, in no order."""
    width = candidates.shape[1]
    for i in range(start, stop):
        cut(keys[i, : used[i]], width)
        for c in range(width):
            candidates[i, c] = keys[i, c] & 0x7FFFFFFF


@jit_vector_sum
def squared_distance(x: Array, y: Array) -> np.float32:
    """Squares of float32 differences, summed in float64, rounded once; exactly 0 for equal rows."""
    total = 0.0
    for d in range(x.shape[0]):
        step = np.float64(x[d] - y[d])
        total += step * step
    return np.float32(total)


@jit
def rerank(
    features: Array, candidates: Array, order: Array, indices: Array, distances: Array, start: int, stop: int
) -> None:
    """Fill rows ``order[start:stop]`` of both tables with the best candidates by (true distance, index)."""
    width = candidates.shape[1]
    true = np.empty(width, dtype=np.float32)
    for place in range(start, stop):
        r = order[place]
        row = np.sort(candidates[r])  # so that a stable sort leaves ties in index order
        for c in range(width):
            true[c] = squared_distance(features[r], features[row[c]])
        best = np.argsort(true, kind="mergesort")
        for c in range(indices.shape[1]):
            indices[r, c] = row[best[c]]
            distances[r, c] = true[best[c]]
