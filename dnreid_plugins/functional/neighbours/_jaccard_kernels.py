"""Compiled loops of the sparse k-reciprocal encoding. Rows are independent: each call takes a row range."""

from __future__ import annotations

import numpy as np

from .._jit import Array, jit
from ._knn_kernels import squared_distance


@jit
def _grow(array: Array, used: int, need: int) -> Array:
    """``array`` itself, or a copy twice as long when ``used + need`` entries do not fit."""
    if used + need <= array.shape[0]:
        return array
    larger = np.empty(max(2 * array.shape[0], used + need), dtype=array.dtype)
    larger[:used] = array[:used]
    return larger


@jit
def reciprocal_sets(table: Array, width: int, start: int, stop: int) -> tuple[Array, Array]:
    """Neighbours among the first ``width`` that have the row among their first ``width``, in rank order."""
    members = np.empty((stop - start, width), dtype=np.int32)
    counts = np.zeros(stop - start, dtype=np.int32)
    for i in range(start, stop):
        found = 0
        for p in range(width):
            j = table[i, p]
            for q in range(width):
                if table[j, q] == i:
                    members[i - start, found] = j
                    found += 1
                    break
        counts[i - start] = found
    return members, counts


@jit
def expanded_sets(
    full: Array, full_counts: Array, half: Array, half_counts: Array, start: int, stop: int
) -> tuple[Array, Array]:
    """Sorted union of each row's full set and the half sets that it covers by more than two thirds."""
    num = full.shape[0]
    core = np.full(num, -1, dtype=np.int32)
    union = np.full(num, -1, dtype=np.int32)
    columns = np.empty(64 * (stop - start), dtype=np.int32)
    counts = np.zeros(stop - start, dtype=np.int64)
    used = 0
    for i in range(start, stop):
        columns = _grow(columns, used, full_counts[i] * (half.shape[1] + 1))
        first = used
        for p in range(full_counts[i]):
            j = full[i, p]
            core[j] = i
            union[j] = i
            columns[used] = j
            used += 1
        for p in range(full_counts[i]):
            j = full[i, p]
            size = half_counts[j]
            shared = 0
            for q in range(size):
                shared += core[half[j, q]] == i
            if 3 * shared > 2 * size:
                for q in range(size):
                    c = half[j, q]
                    if union[c] != i:
                        union[c] = i
                        columns[used] = c
                        used += 1
        columns[first:used].sort()
        counts[i - start] = used - first
    return columns[:used].copy(), counts


@jit
def _lookup(table: Array, i: int, j: int) -> int:
    """Place of ``j`` among the neighbours of ``i``, or -1."""
    for p in range(table.shape[1]):
        if table[i, p] == j:
            return p
    return -1


@jit
def softmax_weights(
    features: Array, table: Array, distances: Array, indptr: Array, columns: Array, start: int, stop: int
) -> Array:
    """Softmax of minus the squared distance over each row's set, in float64, rounded once to float32.

    Distances that the k-NN search has already found are taken from there (``distances`` may have no row).
    """
    base = indptr[start]
    values = np.empty(indptr[stop] - base, dtype=np.float32)
    weights = np.empty(0, dtype=np.float64)
    known = distances.shape[0] > 0
    for i in range(start, stop):
        size = indptr[i + 1] - indptr[i]
        if weights.shape[0] < size:
            weights = np.empty(2 * size, dtype=np.float64)
        smallest = np.inf
        for p in range(size):
            j = columns[indptr[i] + p]
            place = _lookup(table, i, j) if known else -1
            back = _lookup(table, j, i) if known and place < 0 else -1
            if place >= 0:
                weights[p] = distances[i, place]
            elif back >= 0:
                weights[p] = distances[j, back]
            else:
                weights[p] = squared_distance(features[i], features[j])
            smallest = min(smallest, weights[p])
        total = 0.0
        for p in range(size):
            weights[p] = np.exp(smallest - weights[p])
            total += weights[p]
        for p in range(size):
            values[indptr[i] - base + p] = weights[p] / total
    return values


@jit
def average_rows(
    table: Array,
    shares: Array,
    divisor: int,
    indptr: Array,
    columns: Array,
    values: Array,
    total: Array,
    start: int,
    stop: int,
) -> tuple[Array, Array, Array]:
    """Sum of ``shares[i, p]`` times row ``table[i, p]``, divided by ``divisor``; columns ascending.

    ``total`` is an array of N entries of the type to sum in; it is not used otherwise.
    """
    seen = np.full(total.shape[0], -1, dtype=np.int32)
    total = np.zeros_like(total)
    out_columns = np.empty(128 * (stop - start), dtype=np.int32)
    out_values = np.empty(128 * (stop - start), dtype=np.float32)
    counts = np.zeros(stop - start, dtype=np.int64)
    used = 0
    for i in range(start, stop):
        first = used
        for p in range(table.shape[1]):
            j = table[i, p]
            out_columns = _grow(out_columns, used, indptr[j + 1] - indptr[j])
            for e in range(indptr[j], indptr[j + 1]):
                c = columns[e]
                if seen[c] != i:
                    seen[c] = i
                    total[c] = shares[i, p] * values[e]
                    out_columns[used] = c
                    used += 1
                else:
                    total[c] += shares[i, p] * values[e]
        out_columns[first:used].sort()
        out_values = _grow(out_values, first, used - first)
        for e in range(first, used):
            out_values[e] = total[out_columns[e]] / divisor
        counts[i - start] = used - first
    return out_columns[:used].copy(), out_values[:used].copy(), counts


@jit
def near_pairs(
    indptr: Array,
    columns: Array,
    values: Array,
    colptr: Array,
    rows: Array,
    row_values: Array,
    radius: float,
    total: Array,
    start: int,
    stop: int,
) -> tuple[Array, Array, Array]:
    """Pairs ``i <= j`` with ``1 - t / (2 - t) <= radius``, ``t`` the sum of minima over shared columns."""
    num = total.shape[0]
    one, two = total.dtype.type(1), total.dtype.type(2)
    seen = np.full(num, -1, dtype=np.int32)
    total = np.zeros_like(total)
    touched = np.empty(num, dtype=np.int32)
    out_columns = np.empty(64 * (stop - start), dtype=np.int32)
    out_values = np.empty(64 * (stop - start), dtype=np.float32)
    counts = np.zeros(stop - start, dtype=np.int64)
    used = 0
    for i in range(start, stop):
        found = 0
        for e in range(indptr[i], indptr[i + 1]):
            c = columns[e]
            value = values[e]
            first, last = colptr[c], colptr[c + 1]
            while first < last:  # rows of a column are ascending: skip those before i
                middle = (first + last) // 2
                if rows[middle] < i:
                    first = middle + 1
                else:
                    last = middle
            for f in range(first, colptr[c + 1]):
                j = rows[f]
                if seen[j] != i:
                    seen[j] = i
                    total[j] = min(value, row_values[f])
                    touched[found] = j
                    found += 1
                else:
                    total[j] += min(value, row_values[f])
        begin = used
        out_columns = _grow(out_columns, used, found)
        for p in range(found):
            t = total[touched[p]]
            if np.float32(one - t / (two - t)) <= radius:
                out_columns[used] = touched[p]
                used += 1
        out_columns[begin:used].sort()
        out_values = _grow(out_values, begin, used - begin)
        for e in range(begin, used):
            t = total[out_columns[e]]
            out_values[e] = max(one - t / (two - t), 0)
        counts[i - start] = used - begin
    return out_columns[:used].copy(), out_values[:used].copy(), counts
