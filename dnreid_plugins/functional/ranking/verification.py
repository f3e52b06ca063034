"""Accept or reject pairs: the threshold for a rate of false matches, and how well that rate is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

LEVEL = 0.95
REPLICATES = 1000


def threshold_at(negatives: NDArray[np.float32], total: int, rate: float) -> tuple[float, int]:
    """The lowest similarity from which on at most ``rate`` of the different pairs are accepted, and how many are.

    Args:
        negatives: similarities of different pairs, highest first: all, or at least ``floor(rate * total) + 1``.
        total: number of different pairs.
        rate: in [0, 1).

    Returns:
        ``(value, accepted)``: a pair is accepted if its similarity is at least ``value``. Pairs as similar as the
        first one too many are rejected with it, so ``accepted`` may be smaller than ``floor(rate * total)``.

    Raises:
        ValueError: no pair, or too few of them were given.
    """
    allowed = int(rate * total)
    if allowed >= len(negatives):
        raise ValueError(f"got {len(negatives)} similarities, while {allowed + 1} are needed; give more.")
    value = np.nextafter(np.float32(negatives[allowed]), np.float32(np.inf))
    return float(value), int((negatives[: allowed + 1] >= value).sum())


def clopper_pearson(accepted: int, total: int, *, level: float = LEVEL) -> tuple[float, float]:
    """The exact binomial confidence interval of a rate (Clopper and Pearson, 1934); ``total`` is above 0."""
    tail = (1 - level) / 2
    low = 0.0 if accepted == 0 else float(beta.ppf(tail, accepted, total - accepted + 1))
    high = 1.0 if accepted == total else float(beta.ppf(1 - tail, accepted + 1, total - accepted))
    return low, high


def certifiable_rate(total: int, *, level: float = LEVEL) -> float:
    """The smallest rate that ``total`` different pairs can vouch for: the upper limit if none of them is accepted."""
    return clopper_pearson(0, total, level=level)[1] if total else 1.0


def identity_bootstrap(
    accepted: NDArray[np.int64],
    count_a: NDArray[np.int64],
    count_b: NDArray[np.int64] | None,
    *,
    level: float = LEVEL,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> tuple[float, float]:
    """Confidence interval of the rate of false matches when identities, not pairs, are what was drawn.

    Pairs that share an identity are alike, so an interval that takes them for independent is too narrow. Each
    replicate draws as many identities as there are, with replacement; an identity that comes ``w`` times and another
    that comes ``v`` times give each of their pairs ``w * v`` times (the bootstrap of Snijders and Borgatti, 1999, for
    data of pairs).

    Args:
        accepted: ``(P, 2)`` identities, in ``0 .. C-1``, of the different pairs that are accepted.
        count_a, count_b: ``(C,)`` images of each identity on either side; ``count_b`` None: pairs are within one side.

    Returns:
        The percentiles of the replicates; ``(0, 0)`` where nothing is accepted.
    """
    pairs, times = np.unique(accepted.reshape(-1, 2), axis=0, return_counts=True)
    if not len(pairs):
        return 0.0, 0.0
    identities = len(count_a)
    generator = np.random.default_rng(seed)
    rates = np.zeros(replicates)
    for number in range(replicates):
        weight = np.bincount(generator.integers(identities, size=identities), minlength=identities)
        left = weight * count_a
        if count_b is None:
            total = (left.sum() ** 2 - (left**2).sum()) / 2
        else:
            right = weight * count_b
            total = left.sum() * right.sum() - (left * right).sum()
        found = (weight[pairs[:, 0]] * weight[pairs[:, 1]] * times).sum()
        rates[number] = found / total if total else 0.0
    low, high = np.quantile(rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
