"""Compiled loops of the exact k-NN search: bounded heaps fed from blocks of products, and the final order."""

from __future__ import annotations

import numpy as np

from ._jit import Array, jit, jit_vector_sum

_LANES = 64
"""Columns tested at once; one test per group is what lets the compiler use vector instructions."""


@jit
def _push(distances: Array, indices: Array, distance: float, index: int) -> None:
    """Replace the worst entry of a max-heap ordered by (distance, index) if the new one is better."""
    if distance > distances[0] or (distance == distances[0] and index > indices[0]):
        return
    size = distances.shape[0]
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            distances[other] > distances[child]
            or (distances[other] == distances[child] and indices[other] > indices[child])
        ):
            child = other
        if distances[child] < distance or (distances[child] == distance and indices[child] < index):
            break
        distances[hole] = distances[child]
        indices[hole] = indices[child]
        hole = child
    distances[hole] = distance
    indices[hole] = index


@jit
def feed_rows(
    product: Array,
    row0: int,
    col0: int,
    norms: Array,
    distances: Array,
    indices: Array,
    start: int,
    stop: int,
) -> None:
    """Offer every column of rows ``start..stop`` of a product block to the heaps of those rows."""
    two = np.float32(2)
    columns = product.shape[1]
    for r in range(start, stop):
        i = row0 + r
        norm = norms[i]
        for first in range(0, columns, _LANES):
            last = min(first + _LANES, columns)
            limit = distances[i, 0]
            hits = 0
            for c in range(first, last):
                hits += (norm + norms[col0 + c]) - two * product[r, c] <= limit
            if hits == 0:
                continue
            for c in range(first, last):
                distance = (norm + norms[col0 + c]) - two * product[r, c]
                if distance <= distances[i, 0]:
                    _push(distances[i], indices[i], distance, col0 + c)


@jit
def feed_columns(
    product: Array,
    row0: int,
    col0: int,
    norms: Array,
    distances: Array,
    indices: Array,
    start: int,
    stop: int,
) -> None:
    """Offer every row of a product block to the heaps of columns ``start..stop``: the other direction."""
    two = np.float32(2)
    limits = np.empty(stop - start, dtype=np.float32)
    for c in range(start, stop):
        limits[c - start] = distances[col0 + c, 0]
    for r in range(product.shape[0]):
        i = row0 + r
        norm = norms[i]
        for first in range(start, stop, _LANES):
            last = min(first + _LANES, stop)
            hits = 0
            for c in range(first, last):
                hits += (norm + norms[col0 + c]) - two * product[r, c] <= limits[c - start]
            if hits == 0:
                continue
            for c in range(first, last):
                j = col0 + c
                distance = (norm + norms[j]) - two * product[r, c]
                if distance <= limits[c - start]:
                    _push(distances[j], indices[j], distance, i)
                    limits[c - start] = distances[j, 0]


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
