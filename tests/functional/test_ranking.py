"""CMC, mAP and mINP against loops with a stable sort, and against fast-reid's own function."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fastreid.evaluation.rank import eval_market1501
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dnreid_plugins.functional.neighbours import _product
from dnreid_plugins.functional.ranking._retrieval import Removal
from dnreid_plugins.functional.ranking.metrics import (
    QueryRanks,
    rank_distances,
    rank_metrics,
    summarize,
)


def naive(
    distances: NDArray[np.floating],
    query_ids: NDArray[np.integer],
    gallery_ids: NDArray[np.integer],
    *,
    remove: Removal | None = None,
    by_identity: bool = False,
) -> QueryRanks:
    """One query after the other: sort by (distance, index), remove, walk down the list."""
    first, precision, penalty = [], [], []
    for q, row in enumerate(distances):
        order = np.argsort(row, kind="stable")
        gone = np.zeros(len(row), dtype=bool) if remove is None else remove(np.array([q]))[0]
        listed = [int(gallery_ids[g]) for g in order if not gone[g]]
        ranks = [r for r, identity in enumerate(listed) if identity == query_ids[q]]
        if not ranks:
            first.append(-1)
            precision.append(np.nan)
            penalty.append(np.nan)
            continue
        first.append(len(set(listed[: ranks[0]])) if by_identity else ranks[0])
        precision.append(np.mean([(n + 1) / (r + 1) for n, r in enumerate(ranks)]))
        penalty.append(len(ranks) / (ranks[-1] + 1))
    return QueryRanks(np.array(first, np.int64), np.array(precision, float), np.array(penalty, float))


def assert_equal_ranks(found: QueryRanks, true: QueryRanks) -> None:
    np.testing.assert_array_equal(found.first_rank, true.first_rank)
    np.testing.assert_allclose(found.average_precision, true.average_precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.inverse_penalty, true.inverse_penalty, rtol=0, atol=1e-12)


def make_case(queries: int, gallery: int, ids: int, seed: int, values: int = 0) -> dict[str, Any]:
    """Random ids and distances; with ``values`` only that many different distances."""
    rng = np.random.default_rng(seed)
    distances = rng.random((queries, gallery), dtype=np.float32)
    return {
        "distances": np.floor(distances * values).astype(np.float32) if values else distances,
        "query_ids": rng.integers(0, ids + 2, queries),
        "gallery_ids": rng.integers(0, ids, gallery),
    }


def cameras(queries: int, gallery: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, queries), rng.integers(0, 3, gallery)


def same_camera(case: dict[str, Any], ours: NDArray[np.int64], theirs: NDArray[np.int64]) -> Removal:
    """fast-reid's rule: the images of the query's identity and camera."""
    ids, others = case["query_ids"], case["gallery_ids"]
    return lambda rows: (ids[rows, None] == others) & (ours[rows, None] == theirs)


@given(
    queries=st.integers(1, 30),
    gallery=st.integers(1, 60),
    ids=st.integers(1, 12),
    values=st.sampled_from([0, 1, 2, 5]),
    seed=st.integers(0, 999),
    cmc=st.sampled_from(["image", "identity"]),
)
def test_equals_naive(queries: int, gallery: int, ids: int, values: int, seed: int, cmc: Any) -> None:
    case = make_case(queries, gallery, ids, seed, values)
    rule = same_camera(case, *cameras(queries, gallery, seed))
    found = rank_distances(**case, remove=rule, cmc=cmc)
    assert_equal_ranks(found, naive(**case, remove=rule, by_identity=cmc == "identity"))


@given(seed=st.integers(0, 999), block=st.sampled_from([1, 7, 30, 31]), values=st.sampled_from([0, 3]))
def test_removal(seed: int, block: int, values: int) -> None:
    case = make_case(30, 40, 5, seed, values)
    mask = np.random.default_rng(seed + 1).random((30, 40)) < 0.4
    true = naive(**case, remove=lambda rows: mask[rows])
    before = case["distances"].copy()
    assert_equal_ranks(rank_distances(**case, remove=lambda rows: mask[rows], block=block), true)
    np.testing.assert_array_equal(case["distances"], before)


@given(seed=st.integers(0, 99), shared=st.booleans())
def test_equals_fastreid(seed: int, shared: bool) -> None:
    case = make_case(60, 200, 6, seed)
    # fast-reid leaves the order of ties open, so there are none
    case["distances"] = case["distances"].argsort(axis=1).argsort(axis=1).astype(np.float32)
    ours, theirs = cameras(60, 200, seed)
    if not shared:  # different cameras on both sides: nothing is removed
        theirs += 10
    cmc, precision, penalty = eval_market1501(*case.values(), ours, theirs, 50)
    rule = same_camera(case, ours, theirs) if shared else None
    result = summarize(rank_distances(**case, remove=rule), topk=range(1, 51))
    np.testing.assert_allclose([result[f"Rank-{k}"] for k in range(1, 51)], 100 * cmc, atol=1e-4)
    assert result["mAP"] == pytest.approx(100 * np.mean(precision), abs=1e-6)
    assert result["mINP"] == pytest.approx(100 * np.mean(penalty), abs=1e-6)
    assert result["queries"] - result["queries_without_match"] == len(precision)


@pytest.mark.attack(
    "ties", "copies of an image under other identities: the list's order, in any block and on any product"
)
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_copies_are_equally_far(metric: Any, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not packed:
        monkeypatch.setattr(_product, "_has_packed", lambda: False)
    generator = torch.Generator().manual_seed(0)
    base = torch.nn.functional.normalize(torch.randn(11, 64, generator=generator), dim=1)
    query = torch.nn.functional.normalize(torch.randn(23, 64, generator=generator), dim=1)
    place = torch.randint(11, (133,), generator=generator)
    ids = {"query_ids": np.arange(23) % 5, "gallery_ids": np.random.default_rng(0).integers(0, 5, 133)}
    distances = (1.0 - query.double() @ base.double().T)[:, place].numpy()  # rounded alike for both metrics
    true = summarize(naive(distances, *ids.values()))
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            for block in (1, 7, 512):
                found = rank_metrics(query, base[place], *ids.values(), metric=metric, block=block)
                assert found == pytest.approx(true, abs=1e-9), (threads, block)
        finally:
            torch.set_num_threads(1)


def test_ties_are_broken_by_gallery_index() -> None:
    """All distances equal: the list is the gallery in its order."""
    result = rank_distances(np.zeros((3, 4)), [7, 8, 9], [8, 7, 9, 7])
    assert result.first_rank.tolist() == [1, 0, 2]
    np.testing.assert_allclose(result.average_precision, [(1 / 2 + 2 / 4) / 2, 1, 1 / 3])
    np.testing.assert_allclose(result.inverse_penalty, [2 / 4, 1, 1 / 3])


def test_constant_features_follow_the_same_rule() -> None:
    features = torch.ones(600, 32)
    ids = np.arange(600) % 300
    result = rank_metrics(features[:5], features, ids[:5], ids, topk=(1, 3), block=2)
    assert result["Rank-1"] == pytest.approx(20) and result["Rank-3"] == pytest.approx(60)


def test_hand_made_percentages() -> None:
    query, gallery = torch.eye(3)[:2], torch.tensor([[1.0, 0.1, 0], [0, 1, 0], [1, 0.2, 0], [0, 0, 1]])
    result = rank_metrics(query, gallery, [0, 5], [1, 2, 0, 0], topk=(1, 2, 10))
    assert result == {
        "Rank-1": 0.0,
        "Rank-2": 100.0,
        "Rank-10": 100.0,
        "mAP": pytest.approx(100 * (1 / 2 + 2 / 4) / 2),
        "mINP": pytest.approx(50),
        "queries": 2.0,
        "queries_without_match": 1.0,
    }
    assert all(type(value) is float for value in result.values())


def test_identity_level_cmc_collapses_an_identity() -> None:
    distances = np.array([[0.1, 0.2, 0.3, 0.4, 0.5]])
    by_image, by_identity = (
        rank_distances(distances, [3], [1, 1, 2, 1, 3], cmc=rule) for rule in ("image", "identity")
    )
    assert by_image.first_rank.tolist() == [4] and by_identity.first_rank.tolist() == [2]
    assert by_image.average_precision == by_identity.average_precision


def features_of(queries: int, gallery: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Any, Any]:
    rng = np.random.default_rng(seed)
    centers = torch.from_numpy(rng.standard_normal((20, 32)).astype(np.float32))
    ids = rng.integers(0, 20, queries), rng.integers(0, 20, gallery)
    noise = [torch.from_numpy(rng.standard_normal((n, 32)).astype(np.float32)) for n in (queries, gallery)]
    return centers[ids[0]] + 1.5 * noise[0], centers[ids[1]] + 1.5 * noise[1], *ids


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("block", [1, 7, 99, 100, 512])
def test_from_features(metric: Any, block: int) -> None:
    query, gallery, query_ids, gallery_ids = features_of(100, 150)
    left, right = query.double(), gallery.double()
    if metric == "cosine":
        left, right = (torch.nn.functional.normalize(x, dim=1) for x in (left, right))
        distances = 1 - left @ right.T
    else:
        distances = (left[:, None] - right).square().sum(dim=2)
    true = summarize(naive(distances.numpy(), query_ids, gallery_ids))
    found = rank_metrics(query, gallery, query_ids, gallery_ids, metric=metric, block=block)
    assert found == pytest.approx(true, abs=1e-5)
    assert found["mAP"] > 20


def test_camera_pairs_of_sysu_as_a_function() -> None:
    """A query of camera 3 does not see camera 2, whatever the identity."""
    case = make_case(20, 50, 4, 0)
    cams, others = (numbers + 1 for numbers in cameras(20, 50, 0))
    rule = np.array([[cam == 3 and other == 2 for other in others] for cam in cams])
    found = rank_distances(**case, remove=lambda rows: (cams[rows, None] == 3) & (others == 2))
    assert_equal_ranks(found, naive(**case, remove=lambda rows: rule[rows]))


def test_gallery_shorter_than_k_keeps_the_last_value() -> None:
    result = rank_metrics(torch.eye(2), torch.eye(2), [0, 1], [0, 1], topk=(1, 50))
    assert result["Rank-1"] == result["Rank-50"] == 100


def test_no_query_matches() -> None:
    with pytest.raises(ValueError, match="none of 2 queries has a correct image left"):
        rank_metrics(torch.eye(2), torch.eye(2), [0, 1], [2, 3])
    with pytest.raises(ValueError, match="none of 2 queries"):
        rank_metrics(torch.eye(2), torch.eye(2), [0, 1], [0, 1], remove=lambda rows: np.eye(2)[rows] > 0)
    with pytest.raises(ValueError, match="none of 2 queries"):
        rank_metrics(torch.eye(2), torch.empty(0, 2), [0, 1], [])
    with pytest.raises(ValueError, match="none of 0 queries"):
        rank_metrics(torch.empty(0, 2), torch.eye(2), [], [0, 1])


@pytest.mark.parametrize("side", [0, 1])
def test_refuses_nan(side: int) -> None:
    features = [torch.eye(3), torch.eye(3)]
    features[side][1, 1] = float("nan")
    with pytest.raises(ValueError, match="_features has 1 rows with NaN"):
        rank_metrics(*features, [0, 1, 2], [0, 1, 2])
    with pytest.raises(ValueError, match="distances has NaN"):
        rank_distances(np.full((1, 1), np.nan), [0], [0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query_ids": [0]}, "got 1 query ids and 3 gallery ids for 3 queries and 3 gallery images"),
        ({"metric": "manhattan"}, "metric must be 'cosine' or 'euclidean', got 'manhattan'"),
        ({"cmc": "camera"}, "cmc must be 'image' or 'identity', got 'camera'"),
        ({"gallery_features": torch.eye(4)[:3]}, "query has 3 dimensions, gallery 4"),
        ({"remove": lambda rows: np.zeros((3, 1), bool)}, r"remove gave \(3, 1\) for \(3, 3\) distances"),
        ({"gallery_ids": np.zeros((3, 1))}, "gallery_ids must be a vector"),
    ],
)
def test_refuses(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "query_features": torch.eye(3),
        "gallery_features": torch.eye(3),
        "query_ids": [0, 1, 2],
        "gallery_ids": [0, 1, 2],
    }
    with pytest.raises(ValueError, match=message):
        rank_metrics(**(arguments | change))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu() -> None:
    query, gallery, query_ids, gallery_ids = features_of(300, 500)
    cpu = rank_metrics(query, gallery, query_ids, gallery_ids)
    gpu = rank_metrics(query.cuda(), gallery.cuda(), query_ids, gallery_ids)
    assert gpu == pytest.approx(cpu, abs=1e-5)
