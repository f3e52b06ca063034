"""Votes, soft targets and codes against loops, and the figures computed by hand."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.neighbours.codes import softmax_codes
from dnreid_plugins.functional.neighbours.soft_targets import SoftTargets, neighbour_soft_targets
from dnreid_plugins.functional.neighbours.votes import label_totals, majority_smooth, transfer_by_vote

SIZES = [(0, 3, 2), (1, 1, 1), (5, 1, 3), (40, 7, 4), (9, 12, 1), (6, 4, 0), (3, 0, 2)]


def drawn(num: int, k: int, clusters: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels of neighbours ``(num, k)`` and of the images, outliers among both."""
    generator = torch.Generator().manual_seed(seed + num * 31 + k)
    near = torch.randint(-1, max(clusters, 1), (num, k), generator=generator)
    own = torch.randint(-1, max(clusters, 1), (num,), generator=generator)
    return (near, own) if clusters else (torch.full_like(near, -1), torch.full_like(own, -1))


def slow_votes(labels: list[int], weights: list[float]) -> int:
    votes: dict[int, float] = {}
    for label, weight in zip(labels, weights, strict=True):
        votes[label] = votes.get(label, 0.0) + weight
    return min(votes, key=lambda label: (-votes[label], label), default=-1)


def slow_soft(
    near: list[int], sizes: list[int], y: int, keep: float, sharpness: float
) -> tuple[Tensor, float]:
    """The target as a dense row and the weight."""
    onehot = torch.zeros(len(sizes), dtype=torch.float64)
    if y < 0:
        return onehot, 0.0
    onehot[y] = 1.0
    count = Counter(label for label in near if label >= 0)
    s = torch.zeros_like(onehot)
    for c, n in count.items():
        s[c] = n / (len(near) - n + sizes[c])
    if not count:
        return onehot, 0.0
    s = s / s.sum()
    return keep * onehot + (1 - keep) * s, math.exp(-sharpness * (1 - float(s[y])) ** 2)


def dense(soft: SoftTargets, clusters: int) -> Tensor:
    rows = torch.zeros(len(soft.clusters), clusters + 1)
    rows.scatter_add_(1, torch.where(soft.clusters < 0, clusters, soft.clusters), soft.shares)
    assert not rows[:, clusters].any(), "an unused place has a share"
    return rows[:, :clusters]


def test_soft_targets_by_hand() -> None:
    """K 4, neighbours 0, 0, 1 and an outlier, clusters of 3 and 5: the overlaps are 2/5 and 1/8."""
    near, sizes = torch.tensor([[0, 0, 1, -1]] * 2), torch.tensor([3, 5])
    soft = neighbour_soft_targets(near, sizes, torch.tensor([0, 1]))
    expected = torch.tensor([[0.92857, 0.07143], [0.22857, 0.77143]])
    torch.testing.assert_close(dense(soft, 2), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(soft.weight, torch.tensor([0.56729, 0.0030125]), atol=1e-5, rtol=0)
    overlaps = neighbour_soft_targets(near, sizes, torch.tensor([0, 1]), keep=0.0)
    torch.testing.assert_close(
        dense(overlaps, 2), torch.tensor([[0.761905, 0.238095]] * 2), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("num", "k", "clusters"), SIZES)
@pytest.mark.parametrize(("keep", "sharpness"), [(0.7, 10.0), (0.0, 2.0), (1.0, 0.0)])
def test_soft_targets_equal_the_loop(num: int, k: int, clusters: int, keep: float, sharpness: float) -> None:
    near, own = drawn(num, k, clusters)
    sizes = torch.arange(1, clusters + 1) * 2
    soft = neighbour_soft_targets(near, sizes, own, keep=keep, sharpness=sharpness)
    assert soft.clusters.shape == soft.shares.shape == (num, k + 1)
    assert torch.equal(soft.clusters[:, 0], own)
    for i, row in enumerate(dense(soft, clusters)):
        target, weight = slow_soft(near[i].tolist(), sizes.tolist(), int(own[i]), keep, sharpness)
        torch.testing.assert_close(row, target.float())
        assert float(soft.weight[i]) == pytest.approx(weight, rel=1e-5)
        used = soft.clusters[i][soft.clusters[i] >= 0].tolist()
        assert len(used) == len(set(used)), "a cluster stands twice in a row"


def test_without_a_clustered_neighbour_the_target_is_one_hot_and_the_weight_0() -> None:
    soft = neighbour_soft_targets(torch.full((2, 3), -1), torch.tensor([4, 4]), torch.tensor([1, -1]))
    assert dense(soft, 2).tolist() == [[0.0, 1.0], [0.0, 0.0]] and soft.weight.tolist() == [0.0, 0.0]


def test_votes_by_hand() -> None:
    """Softmax weights of the cosines .9, .8, .7, .1 are .315, .285, .258: the two that say 1 win."""
    labels = torch.tensor([0, 1, 1, -1])
    near, cosine = torch.tensor([[0, 1, 2]]), torch.tensor([[0.9, 0.8, 0.7]])
    found, totals = label_totals(labels[near], cosine.exp())
    every = torch.tensor([0.9, 0.8, 0.7, 0.1], dtype=torch.float64).exp().sum()
    assert found.tolist() == [[0, 1, -2]]
    torch.testing.assert_close(
        totals / every, torch.tensor([[0.3152, 0.5432, 0.0]]).double(), atol=1e-4, rtol=0
    )
    assert transfer_by_vote(near, cosine, labels).tolist() == [1]
    # two of three say "outlier"; and a vote of one against one goes to the nearer, or by count to the outlier
    assert transfer_by_vote(near, cosine, torch.tensor([0, -1, -1])).tolist() == [-1]
    pair, sims = torch.tensor([[0, 3]]), torch.tensor([[0.9, 0.1]])
    assert transfer_by_vote(pair, sims, labels).tolist() == [0]
    assert transfer_by_vote(pair, sims, labels, weights="count").tolist() == [-1]


@pytest.mark.parametrize(("num", "k", "clusters"), SIZES)
@pytest.mark.parametrize("weights", ["softmax", "count"])
def test_votes_equal_the_loop(num: int, k: int, clusters: int, weights: str) -> None:
    near, _ = drawn(num, k, clusters)
    labels = torch.arange(-1, clusters)  # row c + 1 has label c
    cosine = torch.rand(num, k, generator=torch.Generator().manual_seed(5)) * 2 - 1
    voted = transfer_by_vote(near + 1, cosine, labels, weights=weights)  # type: ignore[arg-type]
    used = cosine.double().exp() if weights == "softmax" else torch.ones(num, k)
    assert voted.tolist() == [slow_votes(*row) for row in zip(near.tolist(), used.tolist(), strict=True)]


def test_smoothing_counts_and_leaves_constant_labels_alone() -> None:
    near = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 3, 0], [3, 2, 1]])
    assert majority_smooth(near, torch.tensor([4, 4, 2, -1])).tolist() == [4, 4, -1, -1]
    for label in (-1, 0, 3):
        constant = torch.full((4,), label)
        assert torch.equal(majority_smooth(near, constant), constant)


def test_codes_are_a_softmax_over_each_set_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, day, night = (F.normalize(torch.randn(n, 6, generator=generator), dim=1) for n in (5, 3, 4))
    codes = softmax_codes(rows, [day, night])
    assert codes.shape == (5, 7)
    for i, row in enumerate(rows):
        for first, part in ((0, day), (3, night)):
            raw = [math.exp(20 * float(row @ one)) for one in part]
            assert codes[i, first : first + len(raw)].tolist() == pytest.approx(
                [r / sum(raw) for r in raw], rel=1e-4
            )
    torch.testing.assert_close(codes.sum(dim=1), torch.full((5,), 2.0))
    assert torch.equal(softmax_codes(rows, [day, night[:0]]), codes[:, :3])
    assert softmax_codes(rows[:0], [day, night]).shape == (0, 7)
