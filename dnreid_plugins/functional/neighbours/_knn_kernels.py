"""Compiled loops of the exact k-NN search: the candidates of each row, and their final order.

Each row collects candidates in a buffer. A candidate is one integer, the bits of the lower
bound of its distance above its index, so that integers compare like (bound, index). A full buffer is cut: what lies
beyond the k-th smallest upper bound cannot be a neighbour; until the end the k-th lower bound and the largest ``room``
between the two bounds of any pair of the row stand for it. If more than ``width`` are left, the lowest stay, and
``lost`` keeps the smallest bound of all that went: the row is proven if this is beyond the k-th upper bound, too.
"""

from __future__ import annotations

import numpy as np

from .._jit import Array, jit, jit_vector_sum

LOW, SCALE, LENGTH, ERROR = 0, 1, 2, 3
"""Rows of the ``(4, N)`` bounds, see `_filter.Filter`."""

_LANES = 8
"""Columns tested at once. A constant, so that one test compiles to a few vector instructions."""

_UP = np.float64(1 + 2.0**-20)
_SLACK = np.float64(2.0**-17)
_INDEX = 0x7FFFFFFF


@jit_vector_sum
def _lower_bounds(product: Array, bounds: Array, i: int, col0: int, out: Array) -> None:
    """Lower bounds of the squared distances of row ``i`` to rows ``col0 ...``, from their products."""
    two = np.float32(2)
    low, scale = bounds[LOW, i], two * bounds[SCALE, i]
    length, error = two * bounds[LENGTH, i], two * bounds[ERROR, i]
    stop = col0 + out.shape[0]
    lows, scales = bounds[LOW, col0:stop], bounds[SCALE, col0:stop]
    lengths, errors = bounds[LENGTH, col0:stop], bounds[ERROR, col0:stop]
    for c in range(out.shape[0]):
        out[c] = (low + lows[c] - scale * scales[c] * np.float32(product[c])) - (
            length * errors[c] + error * lengths[c]
        )


@jit_vector_sum
def _any_within(low: Array, limits: Array) -> bool:
    hits = np.int32(0)
    for c in range(_LANES):
        hits |= np.int32(low[c] <= limits[c])
    return hits != 0


@jit_vector_sum
def _any_below(low: Array, limit: float) -> bool:
    hits = np.int32(0)
    for c in range(_LANES):
        hits |= np.int32(low[c] <= limit)
    return hits != 0


@jit
def _bound(key: int) -> np.float32:
    """The lower bound in a candidate."""
    return np.int32(key >> 32).view(np.float32)


@jit
def _keep(i: int, limit: float, width: int, keys: Array, used: Array, limits: Array, lost: Array) -> None:
    """Only candidates of row ``i`` whose bounds are up to ``limit``, and of these the ``width`` lowest."""
    kept = 0
    for c in range(used[i]):
        if _bound(keys[i, c]) <= limit:
            keys[i, kept] = keys[i, c]
            kept += 1
    limits[i] = limit
    if kept > width:
        keys[i, :kept] = np.partition(keys[i, :kept], width)
        lost[i] = min(lost[i], _bound(keys[i, width]))
        limits[i] = min(limits[i], lost[i])
        kept = width
    used[i] = kept


@jit
def _last_upper(i: int, bounds: Array, tiny: float, k: int, keys: Array, count: int) -> float:
    """The k-th smallest upper bound of the ``count`` candidates of row ``i``."""
    length, error = np.float64(bounds[LENGTH, i]), np.float64(bounds[ERROR, i])
    upper = np.empty(count, dtype=np.float64)
    for c in range(count):
        j = keys[i, c] & _INDEX
        theirs = np.float64(bounds[LENGTH, j])
        room = 4 * (length * np.float64(bounds[ERROR, j]) + error * theirs)
        slack = 2 * (_SLACK * (length * length + theirs * theirs) + 2 * tiny)
        upper[c] = np.float64(_bound(keys[i, c])) + room + slack
    return np.partition(upper, k - 1)[k - 1] * _UP


@jit
def _offer(
    i: int,
    j: int,
    low: float,
    rooms: Array,
    k: int,
    width: int,
    keys: Array,
    used: Array,
    limits: Array,
    lost: Array,
) -> None:
    """Take ``j`` as a candidate of ``i``. The bound is not negative, so that its bits compare like the number."""
    bits = np.int64(np.float32(max(low, 0.0)).view(np.int32))
    keys[i, used[i]] = (bits << 32) | np.int64(j)
    used[i] += 1
    if used[i] == keys.shape[1]:
        nearest = _bound(np.partition(keys[i], k - 1)[k - 1])
        _keep(i, (np.float64(nearest) + rooms[i]) * _UP, width, keys, used, limits, lost)


@jit
def feed_rows(
    product: Array,
    row0: int,
    col0: int,
    bounds: Array,
    rooms: Array,
    k: int,
    width: int,
    keys: Array,
    used: Array,
    limits: Array,
    lost: Array,
    start: int,
    stop: int,
) -> None:
    """Offer every column of rows ``start..stop`` of a product block to those rows."""
    columns = product.shape[1]
    low = np.empty(columns, dtype=np.float32)
    for r in range(start, stop):
        i = row0 + r
        _lower_bounds(product[r], bounds, i, col0, low)
        limit = limits[i]
        for first in range(0, columns, _LANES):
            last = min(first + _LANES, columns)
            if last - first == _LANES and not _any_below(low[first:last], limit):
                continue
            for c in range(first, last):
                if low[c] <= limit:
                    _offer(i, col0 + c, low[c], rooms, k, width, keys, used, limits, lost)
                    limit = limits[i]


@jit
def feed_columns(
    product: Array,
    row0: int,
    col0: int,
    bounds: Array,
    rooms: Array,
    k: int,
    width: int,
    keys: Array,
    used: Array,
    limits: Array,
    lost: Array,
    start: int,
    stop: int,
) -> None:
    """Offer every row of a product block to the columns ``start..stop``: the other direction."""
    low = np.empty(stop - start, dtype=np.float32)
    limit = limits[col0 + start : col0 + stop]
    for r in range(product.shape[0]):
        _lower_bounds(product[r, start:stop], bounds, row0 + r, col0 + start, low)
        for first in range(0, stop - start, _LANES):
            last = min(first + _LANES, stop - start)
            if last - first == _LANES and not _any_within(low[first:last], limit[first:last]):
                continue
            for c in range(first, last):
                if low[c] <= limit[c]:
                    _offer(col0 + start + c, row0 + r, low[c], rooms, k, width, keys, used, limits, lost)


@jit_vector_sum
def squared_distance(x: Array, y: Array) -> np.float32:
    """Squares of float32 differences, summed in float64, rounded once; exactly 0 for equal rows."""
    total = 0.0
    for d in range(x.shape[0]):
        step = np.float64(x[d] - y[d])
        total += step * step
    return np.float32(total)


@jit
def finish(
    bounds: Array,
    tiny: float,
    k: int,
    width: int,
    keys: Array,
    used: Array,
    limits: Array,
    lost: Array,
    proven: Array,
    start: int,
    stop: int,
) -> None:
    """The last cut of rows ``start..stop``, and whether what is left is proven to hold the ``k`` nearest."""
    for i in range(start, stop):
        last = _last_upper(i, bounds, tiny, k, keys, used[i])
        _keep(i, last, width, keys, used, limits, lost)
        proven[i] = lost[i] > last


@jit
def rerank(
    features: Array,
    keys: Array,
    used: Array,
    names: Array,
    order: Array,
    indices: Array,
    distances: Array,
    start: int,
    stop: int,
) -> None:
    """Fill rows ``order[start:stop]`` of both tables with the best candidates by (true distance, name).

    Row ``r`` and a candidate ``j`` are rows ``names[r]`` and ``names[j]`` of ``features``; the tables hold names.
    """
    true = np.empty(keys.shape[1], dtype=np.float32)
    for place in range(start, stop):
        r = order[place]
        # sorted, so that a stable sort by distance leaves ties in the order of names
        row = np.sort(names[keys[r, : used[r]] & _INDEX])
        for c in range(row.shape[0]):
            true[c] = squared_distance(features[names[r]], features[row[c]])
        best = np.argsort(true[: row.shape[0]], kind="mergesort")
        for c in range(indices.shape[1]):
            indices[r, c] = row[best[c]]
            distances[r, c] = true[best[c]]


@jit
def _insert(i: int, j: int, distance: np.float32, indices: Array, distances: Array) -> None:
    """Put ``j`` into its place in row ``i`` of the sorted tables; the last entry goes."""
    c = indices.shape[1] - 1
    while c > 0 and (
        distances[i, c - 1] > distance or (distances[i, c - 1] == distance and indices[i, c - 1] > j)
    ):
        indices[i, c], distances[i, c] = indices[i, c - 1], distances[i, c - 1]
        c -= 1
    indices[i, c], distances[i, c] = j, distance


@jit
def complete(
    product: Array,
    features: Array,
    rows: Array,
    col0: int,
    bounds: Array,
    unit: float,
    names: Array,
    indices: Array,
    distances: Array,
    start: int,
    stop: int,
) -> None:
    """Let every column of a block into the sorted tables of its rows where it belongs, by true distances.

    ``product[r]`` is that of ``rows[r]`` and ``col0 ...``. A column is left out where its lower bound is beyond the
    row's last distance, and where this is 0 and its name lower. ``names`` as in `rerank`.
    """
    columns = product.shape[1]
    low = np.empty(columns, dtype=np.float32)
    last = indices.shape[1] - 1
    for r in range(start, stop):
        i = rows[r]
        _lower_bounds(product[r], bounds, i, col0, low)
        limit = np.float64(distances[i, last]) * unit * _UP
        for c in range(columns):
            if not low[c] > limit:
                j = names[col0 + c]
                worst = distances[i, last]
                if (worst == 0 and j > indices[i, last]) or np.any(indices[i] == j):
                    continue
                distance = squared_distance(features[names[i]], features[j])
                if distance < worst or (distance == worst and j < indices[i, last]):
                    _insert(i, j, distance, indices, distances)
                    limit = np.float64(distances[i, last]) * unit * _UP
