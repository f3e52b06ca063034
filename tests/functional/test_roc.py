"""True positive rate at a false positive rate, against sorting everything."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnreid_plugins.functional.ranking.roc import true_positive_rates


def naive(distances, query_ids, gallery_ids, removed, rate: float) -> float:
    same = query_ids[:, None] == gallery_ids[None, :]
    true = np.sort(distances[same & ~removed])
    false = np.sort(distances[~same & ~removed])
    best = 0.0
    for threshold in np.unique(distances):  # accepted: distance < threshold
        if (false < threshold).sum() <= rate * false.size:
            best = max(best, float((true < threshold).mean()))
    return 100 * best


@given(seed=st.integers(0, 10**6), queries=st.integers(2, 9), gallery=st.integers(2, 9), ties=st.booleans())
def test_equal_to_trying_every_threshold(seed: int, queries: int, gallery: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.random((queries, gallery)).astype(np.float32)
    if ties:
        distances = np.round(distances, 1)
    ids = (
        np.concatenate([[0, 1], rng.integers(0, 3, queries - 2)]),
        np.concatenate([[0, 1], rng.integers(0, 3, gallery - 2)]),
    )
    removed = rng.random((queries, gallery)) < 0.3
    removed[0, :2] = False
    rates = (0.05, 0.3, 0.5)
    for block in (1, 4, queries):
        blocks = (distances[start : start + block] for start in range(0, queries, block))
        result = true_positive_rates(blocks, *ids, remove=removed.__getitem__, rates=rates)
        for rate in rates:
            expected = naive(distances, *ids, removed, rate)
            assert result[f"TPR@FPR={rate:.0e}"] == pytest.approx(expected)


def test_separated_pairs_give_all_and_reversed_pairs_none() -> None:
    ids = np.repeat(np.arange(20), 2)
    same = ids[:, None] == ids[None, :]
    for distances, expected in ((1.0 - same, 100.0), (same.astype(float), 0.0)):
        result = true_positive_rates([distances.astype(np.float32)], ids, ids)
        assert result == {"TPR@FPR=1e-04": expected, "TPR@FPR=1e-03": expected, "TPR@FPR=1e-02": expected}


def test_no_true_or_no_false_pair_is_refused() -> None:
    zeros = [np.zeros((2, 2), dtype=np.float32)]
    with pytest.raises(ValueError, match="got 4 and 0; switch it off .TEST.ROC"):
        true_positive_rates(zeros, np.zeros(2), np.zeros(2))
    with pytest.raises(ValueError, match="got 0 and 4"):
        true_positive_rates(zeros, np.zeros(2), np.ones(2))
