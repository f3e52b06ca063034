"""Thresholds and their intervals against counting, scipy's own interval and a slow bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from dnreid_plugins.functional.ranking.verification import (
    certifiable_rate,
    clopper_pearson,
    identity_bootstrap,
    threshold_at,
)


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.3, 0.99])
@pytest.mark.parametrize("levels", [7, 1000])
def test_the_threshold_is_the_lowest_that_accepts_few_enough(rate: float, levels: int) -> None:
    negatives = np.random.default_rng(0).integers(0, levels, 200).astype(np.float32) / levels
    value, accepted = threshold_at(np.sort(negatives)[::-1], 200, rate)
    assert accepted == (negatives >= np.float32(value)).sum() <= rate * 200
    lower = np.nextafter(np.float32(value), np.float32(-1))
    assert (negatives >= lower).sum() > rate * 200, "a lower one would accept too many"
    cut, _ = threshold_at(np.sort(negatives)[::-1][: int(rate * 200) + 1], 200, rate)
    assert cut == value


def test_too_few_similarities_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 similarities, while 3 are needed"):
        threshold_at(np.array([0.5, 0.4], np.float32), 200, 0.01)


@pytest.mark.parametrize(("accepted", "total"), [(0, 1), (0, 40), (1, 40), (40, 40), (17, 3000)])
def test_the_interval_is_the_exact_binomial_one(accepted: int, total: int) -> None:
    expected = binomtest(accepted, total).proportion_ci(0.95, "exact")
    assert clopper_pearson(accepted, total) == pytest.approx((expected.low, expected.high))


def test_what_a_number_of_pairs_can_certify() -> None:
    assert certifiable_rate(0) == 1.0
    assert certifiable_rate(3687) > 1e-3 > certifiable_rate(3689)


@pytest.mark.parametrize("within", [True, False])
def test_the_bootstrap_draws_identities(within: bool) -> None:
    rng = np.random.default_rng(3)
    left = rng.integers(0, 6, 30)
    right = left if within else rng.integers(0, 6, 20)
    score = rng.normal(size=(30, len(right))) + (left[:, None] < 2)  # two identities that resemble many
    pairs = [
        (i, j) for i in range(30) for j in range(len(right)) if left[i] != right[j] and (not within or i < j)
    ]
    accepted = np.array([(left[i], right[j]) for i, j in pairs if score[i, j] > 1.5])
    counts = np.bincount(left, minlength=6), np.bincount(right, minlength=6)
    got = identity_bootstrap(accepted, counts[0], None if within else counts[1], replicates=50)
    rates, generator = [], np.random.default_rng(0)
    for _ in range(50):
        drawn = generator.integers(6, size=6).tolist()
        images = [drawn.count(one) for one in left], [drawn.count(one) for one in right]
        total = sum(images[0][i] * images[1][j] for i, j in pairs)
        rates.append(sum(images[0][i] * images[1][j] for i, j in pairs if score[i, j] > 1.5) / max(total, 1))
    assert got == pytest.approx(tuple(np.quantile(rates, [0.025, 0.975])))
    binomial = clopper_pearson(len(accepted), len(pairs))
    assert got[1] - got[0] > binomial[1] - binomial[0], "pairs of one identity are not independent"


def test_nothing_accepted_gives_no_width_of_its_own() -> None:
    assert identity_bootstrap(np.empty((0, 2), np.int64), np.array([3, 3]), None) == (0.0, 0.0)


def test_a_replicate_of_one_identity_alone_has_no_pair_and_accepts_none() -> None:
    """Of two vehicles, half of the replicates hold one of them twice."""
    assert identity_bootstrap(np.array([[0, 1]]), np.array([1, 1]), None) == (0.0, 1.0)
