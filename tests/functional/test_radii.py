"""Many radii from one graph, the choice among them, and the k-distances, each against an obvious twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.cluster import DBSCAN

from dnreid_plugins.functional.neighbours.clustering import dbscan_graph, dbscan_radii, jaccard_dbscan
from dnreid_plugins.functional.neighbours.jaccard import jaccard_graph
from dnreid_plugins.functional.neighbours.radius import (
    RADII,
    _chosen,
    jaccard_dbscan_auto,
    k_distances,
    radius_scores,
)


def grouped(sizes: list[int], *, noise: float, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Unit rows around a centre per group, and their groups."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    centres = torch.nn.functional.normalize(torch.randn(len(sizes), 24, generator=generator), dim=1)
    rows = centres[ids] + noise * torch.randn(len(ids), 24, generator=generator)
    return torch.nn.functional.normalize(rows, dim=1), ids.numpy()


def random_graph(num: int, density: float, seed: int) -> tuple[sparse.csr_array, np.ndarray]:
    """Few values on purpose: ties with radii, zeros, rows that are not their own neighbour."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((num, num)) < density, k=1)
    np.fill_diagonal(upper, rng.random(num) < 0.9)
    values = rng.choice(np.float32([0, 0.25, 0.4, 0.5, 0.75]), (num, num))
    np.fill_diagonal(values, 0)
    row, col = np.nonzero(upper)
    dense = np.ones((num, num), dtype=np.float32)
    dense[row, col] = dense[col, row] = values[row, col]
    return sparse.csr_array((values[row, col], (row, col)), shape=(num, num)), dense


@given(
    num=st.integers(1, 40),
    density=st.floats(0, 0.5),
    radii=st.lists(st.sampled_from([0.1, 0.25, 0.3, 0.4, 0.5, 0.74, 0.75]), max_size=6),
    min_samples=st.integers(1, 7),
    seed=st.integers(0, 999),
)
@settings(max_examples=150, deadline=None)
def test_labels_at_every_radius_equal_those_of_separate_runs(
    num: int, density: float, radii: list[float], min_samples: int, seed: int
) -> None:
    graph, dense = random_graph(num, density, seed)
    found = dbscan_radii(graph, sorted(radii), min_samples=min_samples)
    assert found.shape == (len(radii), num) and found.dtype == np.int64
    for own, radius in zip(found, sorted(radii), strict=True):
        twin = DBSCAN(eps=radius, min_samples=min_samples, metric="precomputed").fit_predict(dense)
        np.testing.assert_array_equal(own, twin)


def test_radii_must_ascend() -> None:
    graph, _ = random_graph(5, 0.5, 0)
    with pytest.raises(ValueError, match=r"ascending order, got \[0.5, 0.4\]"):
        dbscan_radii(graph, [0.5, 0.4], min_samples=2)


def test_a_graph_without_images_has_no_labels() -> None:
    empty = sparse.csr_array((0, 0), dtype=np.float32)
    assert dbscan_radii(empty, [0.3, 0.5], min_samples=4).shape == (2, 0)


@given(num=st.integers(0, 30), density=st.floats(0, 0.6), count=st.integers(1, 6), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_k_distances_equal_sorted_rows(num: int, density: float, count: int, seed: int) -> None:
    if num == 0:
        assert k_distances(sparse.csr_array((0, 0), dtype=np.float32), count).shape == (0,)
        return
    graph, dense = random_graph(num, density, seed)
    twin = [np.sort(row)[count - 1] if count <= num else 1.0 for row in dense]
    np.testing.assert_array_equal(k_distances(graph, count), np.float32(twin))


def test_an_image_is_a_core_from_its_k_distance_on() -> None:
    features, _ = grouped([9, 14, 20, 5], noise=0.15)
    distances = k_distances(jaccard_graph(features, k1=8, radius=0.9), 4)
    graph = jaccard_graph(features, k1=8, radius=0.9)
    for radius in (0.3, 0.5, 0.7):
        alone = dbscan_graph(graph, eps=radius, min_samples=4) < 0
        assert not (alone & (distances <= np.float32(radius))).any()


def widest(scores: np.ndarray, first: int) -> float:
    """The largest radius up to 0.1 above the first one at which each set has half of its score there."""
    chosen = RADII[first]
    for place, radius in enumerate(RADII):
        kept = all(own[place] >= own[first] / 2 for own in scores if own[first] > 0)
        if radius < RADII[first] + 0.11 and kept:
            chosen = max(chosen, radius)
    return chosen


@pytest.mark.parametrize(("noise", "seed"), [(0.05, 0), (0.12, 1), (0.18, 2)])
def test_the_chosen_radius_finds_the_groups(noise: float, seed: int) -> None:
    """The twin tries every radius by itself; where some radius finds the groups exactly, so does the one of the best
    score, and the chosen one lies at most 0.1 above it."""
    from sklearn.metrics import adjusted_rand_score

    features, ids = grouped([12] * 8 + [20] * 4, noise=noise, seed=seed)
    (labels,), radius = jaccard_dbscan_auto([features], k1=10, k2=6)
    assert radius in RADII
    np.testing.assert_array_equal(labels, jaccard_dbscan(features, k1=10, k2=6, eps=radius))
    alone = [jaccard_dbscan(features, k1=10, k2=6, eps=one) for one in RADII]
    scores = radius_scores(np.stack(alone), features)
    first = int(scores.argmax())
    assert radius == widest(scores[None], first)
    best = max(adjusted_rand_score(ids, own) for own in alone)
    assert best > 0.9 and adjusted_rand_score(ids, alone[first]) > best - 0.05


def silhouette(features: torch.Tensor, labels: np.ndarray) -> float:
    """Mean over all images, with the distance to centroids; every image has a cluster."""
    rows = features.double().numpy()
    centres = np.stack([rows[labels == group].mean(axis=0) for group in range(labels.max() + 1)])
    far = 1 - rows @ (centres / np.linalg.norm(centres, axis=1, keepdims=True)).T
    own = far[np.arange(len(rows)), labels]
    far[np.arange(len(rows)), labels] = np.inf
    other = far.min(axis=1)
    return float(np.mean((other - own) / np.maximum(own, other)))


def test_scores_are_silhouette_of_all_images_times_entropy_beside_the_best() -> None:
    features, ids = grouped([5, 10, 5], noise=0.1)
    half = ids.copy()
    half[::2] = -1
    merged = np.minimum(ids, 1)
    labels = np.stack([ids, half, merged, np.zeros_like(ids), np.full_like(ids, -1)])
    whole, part, two, one, none = radius_scores(labels, features)
    assert whole == 1 and part == pytest.approx(0.5, rel=0.2)
    of_three, of_two = 0.5 * np.log(4) + 0.5 * np.log(2), 0.25 * np.log(4) + 0.75 * np.log(4 / 3)
    ratio = silhouette(features, merged) * of_two / (silhouette(features, ids) * of_three)
    assert two == pytest.approx(ratio, abs=1e-5)
    assert (one, none) == (-2, -3)


@pytest.mark.parametrize(("noise", "follows"), [(0.1, 1), (0.2, 0)])
def test_several_sets_get_the_radius_with_the_largest_sum_of_their_scores(noise: float, follows: int) -> None:
    sets = [grouped([12] * 8, noise=noise)[0], grouped([20] * 5, noise=0.18, seed=1)[0]]
    every = [np.stack([jaccard_dbscan(one, k1=10, k2=6, eps=eps) for eps in RADII]) for one in sets]
    scores = [radius_scores(labels, features) for labels, features in zip(every, sets, strict=True)]
    best = int((scores[0] + scores[1]).argmax())
    found, radius = jaccard_dbscan_auto(sets, k1=10, k2=6)
    assert radius == widest(np.stack(scores), best)
    for labels, twin in zip(found, every, strict=True):
        np.testing.assert_array_equal(labels, twin[RADII.index(radius)])
    alone = [int(own.argmax()) for own in scores]
    assert best == alone[follows] != alone[1 - follows]


@pytest.mark.parametrize(
    ("structure", "chosen"),
    [
        ([[0.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.55]], 5),  # 0.1 above the best, not further
        ([[0.2, 1.0, 0.9, 0.49, 0.3, 0.2, 0.1]], 2),  # half of the best must be left
        ([[0.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5], [0.0, 1.0, 0.9, 0.8, 0.4, 0.3, 0.2]], 3),  # in each set
        ([[0.2, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5], [-3.0, -3.0, -3.0, -2.0, -2.0, -2.0, -2.0]], 5),  # no say
        ([[-3.0, -3.0, -2.0, -2.0, -2.0, -2.0, -2.0]], 2),  # nothing to widen: the first with one cluster
        ([[-3.0] * 7], 0),
    ],
)
def test_the_radius_lies_above_the_best_where_structure_is_left(
    structure: list[list[float]], chosen: int
) -> None:
    assert _chosen(np.array(structure), np.array(RADII[:7])) == chosen


@pytest.mark.parametrize("hopeless", [torch.eye(3), torch.eye(1)])
def test_a_set_without_clusters_does_not_decide(hopeless: torch.Tensor) -> None:
    features, _ = grouped([12] * 8 + [20] * 4, noise=0.12, seed=1)
    hopeless = torch.nn.functional.pad(hopeless, (0, features.shape[1] - hopeless.shape[1]))
    (alone,), radius = jaccard_dbscan_auto([features], k1=10)
    (none, labels), common = jaccard_dbscan_auto([hopeless, features], k1=10)
    assert common == radius and set(none) == {-1}
    np.testing.assert_array_equal(labels, alone)


def test_one_large_cluster_beside_small_clear_ones_loses_to_the_groups() -> None:
    """Two tiny far clusters make the silhouette of the merged labelling better than that of the groups."""
    features, ids = grouped([10] * 6 + [4, 4], noise=0.1)
    merged = np.where(ids < 6, 0, ids)
    apart, together = radius_scores(np.stack([ids, merged]), features)
    assert apart > 2 * together


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_images_are_outliers_at_the_largest_radius(count: int) -> None:
    (labels,), radius = jaccard_dbscan_auto([torch.eye(max(count, 1), 8)[:count]], k1=8)
    assert labels.tolist() == [-1] * count and radius == RADII[-1]


def test_a_single_group_is_one_cluster_at_the_smallest_radius_that_has_it() -> None:
    features, _ = grouped([12], noise=0.01)
    (labels,), radius = jaccard_dbscan_auto([features], k1=12)
    assert set(labels) == {0} and radius == RADII[0]
