"""Compiled loop of the rank evaluation: the rank of every correct image by counting, without sorting."""

from __future__ import annotations

import numpy as np

from .._jit import Array, jit, jit_vector_sum


@jit_vector_sum
def _count_up_to(row: Array, limit: float) -> int:
    """Entries at most ``limit``. Counted in float32 (exact below 2**24) to fill a vector register."""
    one, zero = np.float32(1), np.float32(0)
    count = zero
    for g in range(row.shape[0]):
        count += one if row[g] <= limit else zero
    return int(count)


@jit_vector_sum
def _count_below(row: Array, limit: float) -> int:
    """Entries less than ``limit``."""
    one, zero = np.float32(1), np.float32(0)
    count = zero
    for g in range(row.shape[0]):
        count += one if row[g] < limit else zero
    return int(count)


@jit
def _before(row: Array, p: int) -> int:
    """How many images come before image ``p`` in the order (distance, gallery index)."""
    return _count_up_to(row[:p], row[p]) + _count_below(row[p + 1 :], row[p])


@jit
def _identities_before(row: Array, p: int, codes: Array, seen: Array, stamp: int) -> int:
    """How many identities other than that of image ``p`` have an image before it."""
    limit = row[p]
    count = 0
    for g in range(row.shape[0]):
        if (
            (row[g] < limit or (row[g] == limit and g < p))
            and codes[g] != codes[p]
            and seen[codes[g]] != stamp
        ):
            seen[codes[g]] = stamp
            count += 1
    return count


@jit
def rank_rows(
    distances: Array,
    query_codes: Array,
    id_ends: Array,
    id_members: Array,
    gallery_codes: Array,
    by_identity: bool,
    start: int,
    stop: int,
) -> tuple[Array, Array, Array]:
    """First rank (from 0), AP and INP of rows ``start..stop``; rank -1 and NaN where nothing matches.

    A removed image has distance infinity. ``id_members[id_ends[c]:id_ends[c + 1]]`` are the gallery images of
    identity ``c``, ascending; a query code of -1 means that the gallery has no such identity.
    """
    first_rank = np.full(stop - start, -1, dtype=np.int64)
    precision = np.full(stop - start, np.nan)
    penalty = np.full(stop - start, np.nan)
    seen = np.full(id_ends.shape[0], -1, dtype=np.int64)
    for q in range(start, stop):
        code = query_codes[q]
        if code < 0:
            continue
        row = distances[q]
        members = id_members[id_ends[code] : id_ends[code + 1]]
        ranks = np.empty(members.shape[0], dtype=np.int64)
        found = 0
        for p in members:
            if row[p] < np.inf:
                ranks[found] = _before(row, p)
                found += 1
        if found == 0:
            continue
        ranks = np.sort(ranks[:found])
        total = 0.0
        for h in range(found):
            total += (h + 1) / (ranks[h] + 1)
        out = q - start
        precision[out] = total / found
        penalty[out] = found / (ranks[found - 1] + 1)
        first_rank[out] = ranks[0]
        if by_identity:
            best = members[0]
            for p in members:
                if row[p] < row[best]:
                    best = p
            first_rank[out] = _identities_before(row, best, gallery_codes, seen, q)
    return first_rank, precision, penalty
