"""Closed forms and invariants of the agreement scores; the silhouette against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from dnreid_plugins.functional.cluster_quality import (
    cluster_quality,
    label_free_quality,
    label_stability,
    mutual_share,
)

NAMES = ("ARI", "AMI", "FMI", "V")


def test_perfect_labels_score_one() -> None:
    true = np.repeat([5, 2, 9], 4)
    scores = cluster_quality(np.repeat([0, 1, 2], 4), true)
    assert set(scores) == {*NAMES, *(f"{name}_clustered" for name in NAMES)}
    assert all(value == pytest.approx(1) for value in scores.values())


@given(seed=st.integers(0, 99), num=st.integers(2, 60))
def test_names_of_clusters_do_not_matter(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    labels, true = rng.integers(-1, 5, num), rng.integers(0, 6, num)
    renamed = np.where(labels >= 0, 40 - 7 * labels, -1)
    first, second = cluster_quality(labels, true), cluster_quality(renamed, true)
    for name in NAMES:
        assert first[name] == pytest.approx(second[name], abs=1e-9)


def test_outliers_are_clusters_of_their_own() -> None:
    labels, true = np.array([0, 0, 1, 1, -1, -1]), np.array([0, 0, 1, 1, 1, 2])
    scores = cluster_quality(labels, true)
    alone = np.array([0, 0, 1, 1, 2, 3])
    assert scores["ARI"] == pytest.approx(metrics.adjusted_rand_score(true, alone))
    assert scores["AMI"] == pytest.approx(metrics.adjusted_mutual_info_score(true, alone))
    assert scores["FMI"] == pytest.approx(metrics.fowlkes_mallows_score(true, alone))
    assert scores["V"] == pytest.approx(metrics.v_measure_score(true, alone))
    assert scores["ARI_clustered"] == 1
    lumped = metrics.adjusted_rand_score(true, labels)
    assert scores["ARI"] != pytest.approx(lumped)


def test_nothing_clustered() -> None:
    scores = cluster_quality(np.full(6, -1), np.repeat([0, 1], 3))
    assert scores["ARI"] == 0
    assert all(math.isnan(scores[f"{name}_clustered"]) for name in NAMES)


def test_takes_tensors_and_lists() -> None:
    expected = cluster_quality(np.array([0, 0, 1]), np.array([0, 0, 1]))
    assert cluster_quality(torch.tensor([0, 0, 1]), [0, 0, 1]) == expected


def test_refuses_unequal_lengths() -> None:
    with pytest.raises(ValueError, match="must be equally long"):
        cluster_quality([0, 1], [0])
    with pytest.raises(ValueError, match=r"features must be \(2, D\)"):
        label_free_quality([0, 1], np.ones((3, 2)))
    with pytest.raises(ValueError, match="must be a vector"):
        cluster_quality(np.zeros((2, 2)), [0, 1])


def naive_silhouette(labels: np.ndarray, features: np.ndarray) -> float:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    names = sorted(set(labels) - {-1})
    centroids = [unit[labels == name].mean(axis=0) for name in names]
    centroids = [c / np.linalg.norm(c) for c in centroids]
    values = []
    for row, label in zip(unit, labels):
        if label < 0:
            continue
        distances = {name: 1 - row @ c for name, c in zip(names, centroids)}
        a = distances.pop(label)
        b = min(distances.values())
        values.append((b - a) / max(a, b))
    return float(np.mean(values))


@given(seed=st.integers(0, 99), num=st.integers(4, 60))
def test_silhouette_equals_loops(seed: int, num: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 4, num)
    labels[:2] = [0, 1]
    features = rng.standard_normal((num, 8))
    result = label_free_quality(labels, features)
    assert result["silhouette"] == pytest.approx(naive_silhouette(labels, features), abs=1e-5)
    assert result["share_clustered"] == pytest.approx((labels >= 0).mean())
    assert result["clusters"] == len(set(labels) - {-1})
    assert result["share_largest"] == pytest.approx(max((labels == c).sum() for c in range(4)) / num)


def test_tight_clusters_score_higher_than_shuffled_ones() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 20)
    features = np.eye(4)[labels] + 0.1 * rng.standard_normal((80, 4))
    good = label_free_quality(labels, torch.from_numpy(features))["silhouette"]
    assert good > 0.8 > 0.2 > label_free_quality(rng.permutation(labels), features)["silhouette"]


@pytest.mark.parametrize("labels", [[-1, -1], [0, 0], [-1, 0]])
def test_fewer_than_two_clusters_have_no_silhouette(labels: list[int]) -> None:
    assert math.isnan(label_free_quality(labels, np.ones((2, 3)))["silhouette"])


def test_no_images() -> None:
    result = label_free_quality([], np.empty((0, 3)))
    assert result["clusters"] == result["share_clustered"] == result["share_largest"] == 0


def test_a_sample_has_nearly_the_silhouette_of_all() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(10), 60)
    features = np.eye(10)[labels] + 0.3 * rng.standard_normal((600, 10))
    whole, part = (label_free_quality(labels, features, sample=n)["silhouette"] for n in (600, 150))
    assert part != whole and part == pytest.approx(whole, abs=0.03)


@given(num=st.integers(0, 60), groups=st.integers(1, 6), seed=st.integers(0, 99))
def test_stability_is_the_adjusted_rand_index_of_what_is_clustered_in_both(
    num: int, groups: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    before = rng.integers(-1, groups, num)
    now = np.where(rng.random(num) < 0.6, before, rng.integers(-1, groups, num))
    both = (before >= 0) & (now >= 0)
    found = label_stability(now, torch.from_numpy(before))
    if both.sum() < 2:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(metrics.adjusted_rand_score(before[both], now[both]), abs=1e-12)


def test_stability_refuses_other_images() -> None:
    with pytest.raises(ValueError, match=r"equally long, got \(2,\) and \(3,\)"):
        label_stability([0, 1], [0, 1, 2])


@pytest.mark.parametrize(("num_day", "num_night"), [(0, 3), (4, 0), (1, 1), (7, 4), (30, 30)])
def test_mutual_share_equals_loops(num_day: int, num_night: int) -> None:
    generator = torch.Generator().manual_seed(0)
    day, night = (
        torch.nn.functional.normalize(torch.randn(n, 6, generator=generator)) for n in (num_day, num_night)
    )
    found = mutual_share(day, night)
    if 0 in (num_day, num_night):
        assert math.isnan(found)
        return
    near = [max(range(num_night), key=lambda j: float(a @ night[j])) for a in day]
    back = [max(range(num_day), key=lambda i: float(day[i] @ b)) for b in night]
    pairs = sum(back[j] == i for i, j in enumerate(near))
    assert found == pytest.approx(2 * pairs / (num_day + num_night))
