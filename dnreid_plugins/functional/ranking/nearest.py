"""The best rows of a gallery for each query: candidates of a fast search, scored again exactly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Matrix = NDArray[np.float32]
#: ``candidates(queries, count) -> (scores, rows)``, ``(Q, count)`` each, best first; -1 where there are fewer.
Candidates = Callable[[Matrix, int], tuple[Matrix, Rows]]

#: Candidates beyond ``k`` that are asked for at first, and how much more each time that they do not suffice.
SPARE, GROWTH = 16, 4
_PAIRS = 1 << 24


def rounding_bound(dim: int) -> float:
    """How far a float32 inner product of two unit rows of ``dim`` entries can be from the true one.

    Any order of summation: ``dim * u / (1 - dim * u)`` with ``u = 2**-24`` (Higham, Accuracy and Stability of
    Numerical Algorithms, 3.5); doubled, since rows have length 1 up to rounding, too.
    """
    unit = 2.0**-24
    return 2 * dim * unit / (1 - dim * unit)


def exact_scores(queries: Matrix, features: Matrix, rows: Rows) -> Matrix:
    """``(Q, C)`` float32 inner products of each query with its ``rows`` ``(Q, C)``, summed in float64.

    Equal rows have equal scores to the bit. Where the row is -1 the score is ``-inf``.
    """
    scores = np.full(rows.shape, -np.inf, dtype=np.float32)
    places = np.argwhere(rows >= 0)
    step = max(_PAIRS // max(features.shape[1], 1), 1)
    for start in range(0, len(places), step):
        query, column = places[start : start + step].T
        left = queries[query].astype(np.float64)
        right = features[rows[query, column]].astype(np.float64)
        scores[query, column] = np.einsum("pd,pd->p", left, right)
    return scores


def best_rows(
    queries: Matrix, features: Matrix, k: int, *, order: Rows, total: int, candidates: Candidates, exact: bool
) -> tuple[Matrix, Rows]:
    """The ``k`` rows with the highest scores, best first, ties by ``order``: scores and rows ``(Q, min(k, total))``.

    Args:
        queries: ``(Q, D)`` float32 unit rows.
        features: ``(N, D)`` float32 unit rows, may be memory-mapped.
        order: ``(N,)`` place of each row among rows of the same score.
        total: rows that ``candidates`` may return.
        candidates: the fast search.
        exact: its scores are all float32 products, so it is asked for more until the bound on their rounding
            proves that no other row can be among the best.
    """
    k = min(k, total)
    scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
    left, count = np.arange(len(queries)), min(k + SPARE, total)
    while len(left) and k:
        rough, found = candidates(queries[left], count)
        values = exact_scores(queries[left], features, found)
        place = np.where(found >= 0, order[found], len(order))
        best = np.lexsort((place, -values), axis=1)[:, :k]
        scores[left] = np.take_along_axis(values, best, axis=1)
        rows[left] = np.take_along_axis(found, best, axis=1)
        if not exact or count == total:
            break
        unsure = scores[left, k - 1] <= rough[:, -1] + rounding_bound(queries.shape[1])
        left, count = left[unsure], min(count * GROWTH, total)
    return scores, rows
