"""Closed forms and invariants of the agreement scores; the silhouette against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from dnreid_plugins.functional.cluster_quality import cluster_quality, label_free_quality

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
