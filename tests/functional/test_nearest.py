"""The best rows against a full sort, at awkward sizes, with ties, and after a fast search that is not exact."""

from __future__ import annotations

import numpy as np
import pytest

from dnreid_plugins.functional.ranking.nearest import best_rows, exact_scores, rounding_bound


def unit(count: int, dim: int, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_sorting(queries: np.ndarray, features: np.ndarray, k: int, order: np.ndarray) -> tuple[list, list]:
    scores, rows = [], []
    for query in queries:
        every = [
            (-np.float32(sum(float(a) * float(b) for a, b in zip(query, one))), order[row], row)
            for row, one in enumerate(features)
        ]
        best = sorted(every)[:k]
        scores.append([-one[0] for one in best])
        rows.append([one[2] for one in best])
    return scores, rows


class Search:
    """All products in float32, with an error that the bound allows; counts what it was asked for."""

    def __init__(self, features: np.ndarray, noise: float = 0.0) -> None:
        self.features, self.noise, self.asked = features, noise, []

    def __call__(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(count)
        products = queries @ self.features.T
        products += self.noise * np.random.default_rng(1).uniform(-1, 1, products.shape).astype(np.float32)
        rows = np.argsort(-products, axis=1, kind="stable")[:, :count]
        return np.take_along_axis(products, rows, axis=1), rows


@pytest.mark.parametrize(
    ("queries", "gallery", "k"), [(0, 5, 2), (3, 0, 2), (1, 1, 5), (4, 60, 1), (3, 200, 17)]
)
def test_the_best_rows_are_those_of_a_full_sort(queries: int, gallery: int, k: int) -> None:
    features, asked = unit(gallery, 8), unit(queries, 8, seed=1)
    order = np.random.default_rng(2).permutation(gallery)
    search = Search(features, noise=rounding_bound(8) / 2)
    found = best_rows(asked, features, k, order=order, total=gallery, candidates=search, exact=True)
    scores, rows = by_sorting(asked, features, min(k, gallery), order)
    assert found[0].shape == found[1].shape == (queries, min(k, gallery))
    np.testing.assert_allclose(found[0], np.array(scores, np.float32).reshape(found[0].shape), atol=1e-7)
    assert found[1].tolist() == rows


def test_exact_ties_follow_the_order_even_beyond_the_first_candidates() -> None:
    features = np.repeat(unit(3, 8), 100, axis=0)
    order = np.arange(300)[::-1].copy()
    search = Search(features)
    _, rows = best_rows(features[:1], features, 4, order=order, total=300, candidates=search, exact=True)
    assert rows.tolist() == [[99, 98, 97, 96]]
    assert search.asked == [20, 80, 300], "ties make it ask for more until none is left out"


def test_a_tie_at_the_last_place_alone_is_followed() -> None:
    features = np.concatenate([unit(1, 8), np.repeat(unit(1, 8, seed=5), 100, axis=0)])
    order = np.arange(101)[::-1].copy()
    search = Search(features)
    _, rows = best_rows(features[:1], features, 2, order=order, total=101, candidates=search, exact=True)
    assert rows.tolist() == [[0, 100]] and search.asked == [18, 72, 101]


def test_an_approximate_search_is_asked_once_and_may_find_fewer() -> None:
    features = unit(50, 8)

    def few(queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.full((len(queries), count), -1, np.int64)
        rows[:, 0] = 7
        return np.zeros(rows.shape, np.float32), rows

    scores, rows = best_rows(
        unit(2, 8, 3), features, 3, order=np.arange(50), total=50, candidates=few, exact=False
    )
    assert rows.tolist() == [[7, -1, -1]] * 2 and np.isneginf(scores[:, 1:]).all()


def test_scores_are_summed_in_double_precision() -> None:
    dim = 4096
    query = np.full((1, dim), dim**-0.5, np.float32)
    features = np.where(np.arange(dim) % 2, -1.0, 1.0).astype(np.float32)[None] * np.float32(dim**-0.5)
    assert exact_scores(query, features, np.array([[0]]))[0, 0] == 0.0
    assert abs(float(features[0] @ features[0]) - 1) < rounding_bound(dim)
