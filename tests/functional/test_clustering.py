"""Pseudo labels against fast-reid's dense distances followed by scikit-learn's DBSCAN, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fastreid_twin import KINDS, fastreid_jaccard, make_features
from hypothesis import given, settings
from hypothesis import strategies as st
from jaccard_reference import reference_arithmetic
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import DBSCAN

from dnreid_plugins.functional.neighbours import clustering
from dnreid_plugins.functional.neighbours.clustering import (
    TIE_TOLERANCE,
    dbscan_graph,
    estimate_label_phase,
    jaccard_dbscan,
)
from dnreid_plugins.functional.neighbours.jaccard import jaccard_graph
from dnreid_plugins.functional.neighbours.knn import knn_table

EPS = (0.3, 0.5, 0.6, 0.7)


def twin_labels(distances: NDArray[np.floating], eps: float, min_samples: int = 4) -> NDArray[np.int64]:
    labels: NDArray[np.int64] = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(
        distances
    )
    return labels


def at_every_radius(
    features: torch.Tensor, *, min_samples: int = 4, **options: Any
) -> list[NDArray[np.int64]]:
    """The labels at each of `EPS`, from one graph."""
    tolerance = clustering.TIE_TOLERANCE  # 0 in reference arithmetic
    graph = jaccard_graph(features, radius=max(EPS) + tolerance, **options)
    return [dbscan_graph(graph, eps=eps + tolerance, min_samples=min_samples) for eps in EPS]


# up to 600 images, most of them few: fast-reid's loops are what takes the time
sizes = st.one_of(*[st.integers(1, 60)] * 6, st.integers(61, 600))


@given(
    kind=st.sampled_from(KINDS),
    num=sizes,
    k1=st.sampled_from([2, 5, 20, 30, 30, 30, 700]),
    k2=st.sampled_from([1, 2, 6, 6, 6, 9]),
    min_samples=st.integers(1, 6),
    seed=st.integers(0, 999),
)
@settings(max_examples=240)
def test_labels_equal_fastreid_and_sklearn(
    kind: str, num: int, k1: int, k2: int, min_samples: int, seed: int
) -> None:
    """In reference arithmetic always; in ours under the tie rule, unless fast-reid's rounding decides."""
    k1 = k1 if num <= 60 else min(k1, 30)
    features = make_features(kind, num, 16, seed)
    table = knn_table(features, k1).indices
    theirs = fastreid_jaccard(features, table, k1=k1, k2=k2)
    options = {"k1": k1, "k2": k2, "min_samples": min_samples, "knn": table}
    with reference_arithmetic():
        exact = at_every_radius(features, **options)
    # below 1e-6 on unit rows; where rows are long or nearly equal its x^2 + y^2 - 2xy cancels
    rounding = 1e-4 if kind in ("lengths", "near copies") else 6e-7
    for eps, reference, accurate in zip(EPS, exact, at_every_radius(features, **options)):
        assert reference.dtype == accurate.dtype == np.int64
        np.testing.assert_array_equal(reference, twin_labels(theirs, eps, min_samples), err_msg=f"eps {eps}")
        limit = eps + TIE_TOLERANCE
        if not (np.abs(theirs - limit) < rounding).any():
            np.testing.assert_array_equal(
                accurate, twin_labels(theirs, limit, min_samples), err_msg=f"eps {eps}"
            )


def test_labels_equal_fastreid_and_sklearn_at_a_thousand() -> None:
    check_at_size(1000)


@pytest.mark.slow
def test_labels_equal_fastreid_and_sklearn_at_three_thousand() -> None:
    check_at_size(3000)


@pytest.mark.stress
def test_labels_equal_fastreid_and_sklearn_at_ten_thousand() -> None:
    check_at_size(10_000)


def check_at_size(num: int) -> None:
    generator = torch.Generator().manual_seed(num)
    centers = torch.randn(num // 25, 64, generator=generator)
    own = torch.randint(len(centers), (num,), generator=generator)
    features = torch.nn.functional.normalize(
        centers[own] + 1.3 * torch.randn(num, 64, generator=generator), dim=1
    )
    found = knn_table(features, 30)
    theirs = fastreid_jaccard(features, found.indices, k1=30, k2=6)
    with reference_arithmetic():
        exact = at_every_radius(features, knn=found)
    ruled = at_every_radius(features, knn=found)
    clusters = set()
    for eps, reference, accurate in zip(EPS, exact, ruled):
        np.testing.assert_array_equal(reference, twin_labels(theirs, eps), err_msg=f"eps {eps}")
        np.testing.assert_array_equal(
            accurate, twin_labels(theirs, eps + TIE_TOLERANCE), err_msg=f"eps {eps}"
        )
        clusters.add(int(accurate.max()))
    assert len(clusters) == len(EPS) and max(clusters) > 10  # the four radii say something different
    np.testing.assert_array_equal(jaccard_dbscan(features, eps=0.6), ruled[2])  # with our own search


@given(
    num=st.integers(1, 40),
    density=st.floats(0, 0.5),
    eps=st.floats(0.1, 0.9),
    min_samples=st.integers(1, 7),
    seed=st.integers(0, 999),
)
@settings(max_examples=200)
def test_dbscan_equals_sklearn(num: int, density: float, eps: float, min_samples: int, seed: int) -> None:
    """Few values on purpose: borders reached by several clusters, ties with eps, zeros."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((num, num)) < density, k=1)
    np.fill_diagonal(upper, rng.random(num) < 0.9)  # a row without itself in its neighbours is not its own
    values = rng.choice(np.float32([0, 0.25, eps, 0.5, 0.75]), (num, num))
    np.fill_diagonal(values, 0)
    row, col = np.nonzero(upper)
    graph = sparse.csr_array((values[row, col], (row, col)), shape=(num, num))
    distances = np.ones((num, num), dtype=np.float32)
    distances[row, col] = distances[col, row] = values[row, col]
    ours = dbscan_graph(graph, eps=eps, min_samples=min_samples)
    np.testing.assert_array_equal(ours, twin_labels(distances, eps, min_samples))


def test_a_structural_tie_is_within() -> None:
    """k2 = 2: two images that share one of their two expansion rows are exactly 1 - 1 / 3 = 2/3 apart."""
    eps = 2 / 3
    features = make_features("noise", 400, 8, 0)
    graph = jaccard_graph(features, k1=4, k2=2, radius=0.7)
    ties = np.abs(graph.data - eps) < 1e-6
    assert ties.sum() > 10
    labels = jaccard_dbscan(features, k1=4, k2=2, eps=eps, min_samples=2)
    coo = graph.tocoo()
    for i, j in zip(coo.row[ties], coo.col[ties]):
        assert labels[i] == labels[j] >= 0
    apart = jaccard_dbscan(features, k1=4, k2=2, eps=eps - 3e-6, min_samples=2)
    assert (apart != labels).any()


def test_one_graph_serves_every_radius() -> None:
    features = make_features("clusters", 300, 32, 0)
    for eps, labels in zip(EPS, at_every_radius(features), strict=True):
        np.testing.assert_array_equal(labels, jaccard_dbscan(features, eps=eps))


def test_clusters_are_numbered_without_gaps_by_first_core() -> None:
    labels = jaccard_dbscan(make_features("copies", 200, 16, 1))
    assert set(labels) - {-1} == set(range(labels.max() + 1))
    firsts = [int(np.nonzero(labels == c)[0][0]) for c in range(labels.max() + 1)]
    assert firsts == sorted(firsts) and len(firsts) > 5


@pytest.mark.parametrize("kind", ["constant", "one cluster"])
def test_collapsed_features_are_one_cluster(kind: str) -> None:
    """Fewer rows than k1, or each row would name the same first k1 rows as its neighbours."""
    labels = jaccard_dbscan(make_features(kind, 30, 16, 0))
    np.testing.assert_array_equal(labels, 0)


@pytest.mark.parametrize("num", [0, 1, 2, 3])
def test_too_few_images_are_outliers(num: int) -> None:
    labels = jaccard_dbscan(make_features("noise", num, 8, 0))
    assert labels.dtype == np.int64 and labels.tolist() == [-1] * num


def test_numpy_torch_and_threads_agree() -> None:
    features = make_features("clusters", 500, 32, 0)
    expected = jaccard_dbscan(features)
    assert expected.max() > 5
    np.testing.assert_array_equal(jaccard_dbscan(features.numpy()), expected)
    np.testing.assert_array_equal(jaccard_dbscan(features.double()), expected)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        np.testing.assert_array_equal(jaccard_dbscan(features), expected)
    finally:
        torch.set_num_threads(before)


def test_joint_clustering_of_two_domains() -> None:
    """Balanced expansion joins the two domains of an identity where the plain one keeps them apart."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randn(8, 32, generator=generator)
    gap = 3 * torch.nn.functional.normalize(torch.randn(32, generator=generator), dim=0)
    own, domains = torch.arange(8).repeat(40), (torch.arange(320) >= 240).long()
    features = centers[own] + 0.5 * torch.randn(320, 32, generator=generator) + gap * domains[:, None]
    features = torch.nn.functional.normalize(features, dim=1)

    def mixed(labels: NDArray[np.int64]) -> int:
        return sum(len(set(domains[labels == c].tolist())) == 2 for c in range(labels.max() + 1))

    plain, balanced = (jaccard_dbscan(features, k1=15, k2=12, eps=0.4, domains=d) for d in (None, domains))
    assert mixed(plain) <= 2 and mixed(balanced) == 8


@pytest.mark.parametrize("eps", [0, -0.1, 1, 1.5, float("nan")])
def test_refuses_a_radius_outside_the_range(eps: float) -> None:
    with pytest.raises(ValueError, match=r"eps must be in \(0, 1\)"):
        jaccard_dbscan(make_features("noise", 10, 8, 0), eps=eps)


def test_refuses_nan() -> None:
    features = make_features("noise", 10, 8, 0)
    features[4, 4] = float("nan")
    with pytest.raises(ValueError, match="features has 1 rows with NaN"):
        jaccard_dbscan(features)


def test_estimate_grows_as_it_should() -> None:
    small, large = (estimate_label_phase(n, 2048, rate=4e11) for n in (10_000, 20_000))
    assert 1.9 < large.bytes / small.bytes < 2.1 or small.bytes > 5e7  # linear above the blocks
    assert 2 < large.seconds / small.seconds < 4.1
    assert estimate_label_phase(71_000, 2048, rate=4e11).bytes < 2**29
    measured = estimate_label_phase(1000, 64)
    assert measured.seconds > 0 and measured.bytes > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_equals_cpu() -> None:
    features = make_features("clusters", 2000, 64, 0)
    cpu = at_every_radius(features)
    gpu = at_every_radius(features.cuda())
    for one, other in zip(cpu, gpu, strict=True):
        np.testing.assert_array_equal(one, other)
