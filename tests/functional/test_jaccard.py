"""Sparse Jaccard distances against fast-reid's dense ones and against a dense float64 twin."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from fastreid_twin import KINDS, fastreid_jaccard, make_features
from hypothesis import given, settings
from hypothesis import strategies as st
from jaccard_reference import reference_arithmetic
from numpy.typing import NDArray

from dnreid_plugins.functional.neighbours import jaccard
from dnreid_plugins.functional.neighbours.jaccard import jaccard_graph, reciprocal_sets
from dnreid_plugins.functional.neighbours.knn import Neighbours, knn_table

BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


def naive_sets(table: NDArray[np.integer]) -> list[list[int]]:
    """Expanded k-reciprocal sets, word for word."""
    num, k1 = table.shape
    lists = [list(map(int, row)) for row in table]
    half = int(np.around(k1 / 2)) + 1

    def reciprocal(i: int, width: int) -> list[int]:
        return [j for j in lists[i][:width] if i in lists[j][:width]]

    sets = []
    for i in range(num):
        core = set(reciprocal(i, k1))
        expanded = set(core)
        for j in core:
            other = set(reciprocal(j, half))
            if 3 * len(other & core) > 2 * len(other):
                expanded |= other
        sets.append(sorted(expanded))
    return sets


def naive_jaccard(
    features: torch.Tensor, table: NDArray[np.integer], k2: int, domains: NDArray[np.integer] | None = None
) -> NDArray[np.float64]:
    """Dense, in float64 throughout."""
    rows = features.double().numpy()
    num = len(rows)
    weights = np.zeros((num, num))
    for i, members in enumerate(naive_sets(table)):
        squares = ((rows[members] - rows[i]) ** 2).sum(axis=1)
        raw = np.exp(squares.min(initial=np.inf) - squares)
        weights[i, members] = raw / raw.sum() if len(members) else 0
    if k2 > 1:
        near = table[:, :k2]
        if domains is None:
            weights = np.stack([weights[row].mean(axis=0) for row in near])
        else:
            weights = np.stack(
                [
                    np.mean([weights[row[domains[row] == d]].mean(axis=0) for d in set(domains[row])], axis=0)
                    for row in near
                ]
            )
    shared = np.minimum(weights[:, None], weights[None]).sum(axis=2)
    distances: NDArray[np.float64] = 1 - shared / (2 - shared)
    return distances


def dense(features: torch.Tensor, table: NDArray[np.integer], **options: object) -> NDArray[np.float32]:
    """Our graph as an upper triangle, 1 where nothing is kept."""
    graph = jaccard_graph(features, knn=table, **options).tocoo()  # type: ignore[arg-type]
    distances = np.ones(graph.shape, dtype=np.float32)
    distances[graph.row, graph.col] = graph.data
    return distances


@given(
    kind=st.sampled_from(KINDS),
    num=st.integers(1, 90),
    k1=st.integers(1, 40),
    k2=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=100)
def test_accurate_equals_dense_float64(kind: str, num: int, k1: int, k2: int, seed: int) -> None:
    features = make_features(kind, num, 16, seed)
    table = knn_table(features, k1).indices
    ours = dense(features, table, k1=k1, k2=k2, radius=BELOW_ONE)
    upper = np.triu_indices(num)
    np.testing.assert_allclose(ours[upper], naive_jaccard(features, table, k2)[upper], atol=3e-7, rtol=0)


@given(
    kind=st.sampled_from(KINDS),
    num=st.integers(1, 90),
    k1=st.integers(1, 40),
    k2=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=100)
def test_reference_repeats_fastreid_bit_for_bit(kind: str, num: int, k1: int, k2: int, seed: int) -> None:
    features = make_features(kind, num, 16, seed)
    table = knn_table(features, k1).indices
    with reference_arithmetic():
        ours = dense(features, table, k1=k1, k2=k2, radius=BELOW_ONE)
    upper = np.triu_indices(num)
    theirs = fastreid_jaccard(features, table, k1=k1, k2=k2)
    np.testing.assert_array_equal(ours[upper], theirs[upper])


def test_kept_distances_are_within_two_millionths_of_fastreid() -> None:
    features = make_features("clusters", 1000, 128, 0)
    table = knn_table(features, 30).indices
    theirs = fastreid_jaccard(features, table, k1=30, k2=6)
    graph = jaccard_graph(features, radius=0.7, knn=table).tocoo()
    assert graph.nnz > 4000
    assert np.abs(theirs[graph.row, graph.col] - graph.data).max() <= 2e-6
    upper = np.triu(theirs <= 0.7 - 2e-6)
    assert graph.nnz >= upper.sum()
    assert upper[graph.row, graph.col].sum() == upper.sum()


@pytest.mark.parametrize("kind", ["noise", "copies", "near copies", "one cluster", "two groups"])
def test_kept_distances_are_so_on_every_kind_of_unit_rows(kind: str) -> None:
    features = make_features(kind, 300, 64, 0)
    table = knn_table(features, 30).indices
    theirs = fastreid_jaccard(features, table, k1=30, k2=6)
    graph = jaccard_graph(features, radius=BELOW_ONE, knn=table).tocoo()
    assert graph.nnz > 1000
    assert np.abs(theirs[graph.row, graph.col] - graph.data).max() <= 2e-6


@pytest.mark.parametrize("rows", [1, 7, 199, 200])
def test_rows_per_task_change_nothing(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features = make_features("clusters", 200, 32, 3)
    whole = jaccard_graph(features)
    monkeypatch.setattr(jaccard, "_ROWS", rows)
    parts = jaccard_graph(features)
    assert whole.nnz > 800
    for one, other in zip(
        (whole.indptr, whole.indices, whole.data), (parts.indptr, parts.indices, parts.data)
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("k1", [1, 2, 3, 5, 24, 25, 26, 30, 60])
def test_sets_equal_naive(k1: int) -> None:
    table = knn_table(make_features("clusters", 60, 16, 1), k1).indices
    ends, members = reciprocal_sets(table)
    assert [members[a:b].tolist() for a, b in pairwise(ends)] == naive_sets(table)


def test_known_distances_change_nothing() -> None:
    """The search hands its distances on; a table of indices alone must give the same graph."""
    features = make_features("lengths", 200, 32, 0)
    found = knn_table(features, 30)
    with_distances, without = (jaccard_graph(features, knn=knn) for knn in (found, found.indices))
    np.testing.assert_array_equal(with_distances.indices, without.indices)
    np.testing.assert_array_equal(with_distances.data, without.data)
    searched = jaccard_graph(features)
    np.testing.assert_array_equal(searched.data, without.data)


@given(num=st.integers(2, 60), k2=st.integers(2, 20), share=st.integers(0, 4), seed=st.integers(0, 99))
@settings(max_examples=50)
def test_balanced_expansion_equals_naive(num: int, k2: int, share: int, seed: int) -> None:
    features = make_features("two groups", num, 16, seed)
    domains = (np.random.default_rng(seed).random(num) < share / 4).astype(np.int64)
    table = knn_table(features, 20).indices
    ours = dense(features, table, k1=20, k2=k2, radius=BELOW_ONE, domains=domains)
    upper = np.triu_indices(num)
    twin = naive_jaccard(features, table, k2, domains)
    np.testing.assert_allclose(ours[upper], twin[upper], atol=3e-7, rtol=0)


def test_balanced_expansion_with_one_domain_is_the_plain_one() -> None:
    features = make_features("clusters", 100, 16, 0)
    plain = jaccard_graph(features)
    balanced = jaccard_graph(features, domains=torch.zeros(100, dtype=torch.int64))
    np.testing.assert_array_equal(plain.indices, balanced.indices)
    np.testing.assert_allclose(plain.data, balanced.data, atol=2e-7)


def test_graph_is_a_sorted_upper_triangle_within_the_radius() -> None:
    graph = jaccard_graph(make_features("copies", 300, 16, 0), radius=0.4)
    coo = graph.tocoo()
    assert graph.nnz > 600 and (coo.row <= coo.col).all() and coo.data.max() <= 0.4 and coo.data.min() >= 0
    for row in range(300):
        columns = graph.indices[graph.indptr[row] : graph.indptr[row + 1]]
        assert (np.diff(columns) > 0).all()


def test_nothing_grows_with_n_squared() -> None:
    graph = jaccard_graph(make_features("noise", 4000, 8, 0), radius=BELOW_ONE)
    assert graph.nnz < 4000 * 30 * 30


def test_order_of_the_rows_changes_nothing() -> None:
    features = make_features("clusters", 200, 32, 3)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    plain = jaccard_graph(features).toarray()
    mixed = jaccard_graph(features[order]).toarray()
    plain, mixed = np.maximum(plain, plain.T), np.maximum(mixed, mixed.T)
    np.testing.assert_allclose(mixed, plain[order][:, order], atol=2e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 1.0}, r"radius must be in \[0, 1\), got 1.0"),
        ({"radius": -0.5}, r"radius must be in \[0, 1\), got -0.5"),
        ({"k1": 0}, "k1 and k2 must be at least 1, got 0 and 6"),
        ({"k2": 0}, "k1 and k2 must be at least 1, got 30 and 0"),
        ({"knn": np.zeros((20, 3), np.int32)}, r"knn must be \(20, 20\) or wider, got \(20, 3\)"),
        ({"knn": np.full((20, 20), -1)}, "knn names rows -1 to -1 of 20"),
        ({"knn": Neighbours(np.full((20, 30), 20, np.int32))}, "knn names rows 20 to 20 of 20"),
        ({"knn": np.full((20, 20), 21)}, "knn names rows 21 to 21 of 20"),
        ({"domains": np.zeros(3, np.int64)}, r"domains must be \(20,\), got \(3,\)"),
    ],
)
def test_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        jaccard_graph(make_features("noise", 20, 8, 0), **options)  # type: ignore[arg-type]


def test_a_row_that_its_copies_keep_out_is_one_from_itself() -> None:
    """As in fast-reid: six copies, five neighbours, so the last row is in nobody's list, nor in its own."""
    graph = jaccard_graph(torch.ones(6, 8), k1=5, k2=1)
    assert graph.diagonal()[:5].tolist() == [0] * 5
    assert graph.indptr[6] - graph.indptr[5] == 0


def test_nothing_in_nothing_out() -> None:
    assert jaccard_graph(torch.empty(0, 8)).shape == (0, 0)
    alone = jaccard_graph(torch.ones(1, 8))
    assert alone.toarray().tolist() == [[0]] and alone.nnz == 1
