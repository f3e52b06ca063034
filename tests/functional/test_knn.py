"""The exact k-NN table against a float64 one, whatever the block, library, type or device."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnreid_plugins.functional.neighbours import _product
from dnreid_plugins.functional.neighbours.knn import Neighbours, as_matrix, knn_across, knn_table


def unit_rows(num: int, dim: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(num, dim, generator=generator), dim=1)


def naive(features: torch.Tensor, k: int) -> Neighbours:
    """Every distance in float64, rounded to float32, sorted by (distance, index)."""
    rows = features.double().numpy()
    distances = ((rows[:, None] - rows[None]) ** 2).sum(axis=2).astype(np.float32)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k].astype(np.int32)
    return Neighbours(order, np.take_along_axis(distances, order, axis=1))


def assert_same_distances(found: Neighbours, true: Neighbours, scale: float = 1.0) -> None:
    assert found.distances is not None and true.distances is not None
    assert found.distances.shape == true.distances.shape
    np.testing.assert_allclose(found.distances, true.distances, rtol=2e-6, atol=4e-6 * scale)


@given(num=st.integers(1, 200), dim=st.integers(1, 40), k=st.integers(1, 60), seed=st.integers(0, 99))
def test_equals_naive(num: int, dim: int, k: int, seed: int) -> None:
    features = unit_rows(num, dim, seed)
    found, true = knn_table(features, k), naive(features, k)
    assert_same_distances(found, true)
    if dim > 3:  # in few dimensions near ties are common and may change places
        np.testing.assert_array_equal(found.indices, true.indices)


def naive_across(queries: torch.Tensor, reference: torch.Tensor, k: int) -> Neighbours:
    """`naive` for two sets of rows."""
    a, b = queries.double().numpy(), reference.double().numpy()
    distances = ((a[:, None] - b[None]) ** 2).sum(axis=2).astype(np.float32)
    order = np.argsort(distances, axis=1, kind="stable")[:, :k].astype(np.int32)
    return Neighbours(order, np.take_along_axis(distances, order, axis=1))


@given(num=st.integers(0, 150), count=st.integers(0, 150), dim=st.integers(4, 40), k=st.integers(1, 60))
@pytest.mark.parametrize("block", [17, 1024])
def test_across_equals_naive(num: int, count: int, dim: int, k: int, block: int) -> None:
    queries, reference = unit_rows(num, dim, 1), unit_rows(count, dim, 2)
    found, true = knn_across(queries, reference, k, block=block), naive_across(queries, reference, k)
    assert found.indices.shape == true.indices.shape == (num, min(k, count))
    assert found.indices.dtype == np.int32
    assert_same_distances(found, true)
    np.testing.assert_array_equal(found.indices, true.indices)


def test_across_a_copy_of_itself_is_the_table() -> None:
    rows = unit_rows(300, 32)
    rows[40:60] = rows[3]  # equal distances: the lower index first
    found, own = knn_across(rows, rows.clone(), 30, block=64), knn_table(rows, 30)
    np.testing.assert_array_equal(found.indices, own.indices)
    np.testing.assert_array_equal(found.distances, own.distances)


def test_across_refusals_name_the_value() -> None:
    rows = unit_rows(4, 5)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        knn_across(rows, rows, 0)
    with pytest.raises(ValueError, match="queries have 5 columns and reference 6; give"):
        knn_across(rows, unit_rows(4, 6), 1)
    with pytest.raises(ValueError, match="reference has 1 rows with NaN"):
        knn_across(rows, torch.full((1, 5), float("nan")), 1)


@pytest.mark.parametrize("block", [1, 7, 64, 99, 100, 101, 4096])
def test_block_changes_nothing(block: int) -> None:
    features = unit_rows(100, 64)
    found, true = knn_table(features, 30, block=block), naive(features, 30)
    np.testing.assert_array_equal(found.indices, true.indices)
    np.testing.assert_array_equal(found.distances, knn_table(features, 30).distances)


def test_threads_change_nothing() -> None:
    features = unit_rows(700, 32)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = knn_table(features, 20, block=128)
    finally:
        torch.set_num_threads(before)
    together = knn_table(features, 20, block=128)
    np.testing.assert_array_equal(alone.indices, together.indices)
    np.testing.assert_array_equal(alone.distances, together.distances)


def test_packed_product_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features = unit_rows(300, 64)
    assert _product._has_packed()
    packed = knn_table(features, 30, block=128)
    monkeypatch.setattr(_product, "_has_packed", lambda: False)
    plain = knn_table(features, 30, block=128)
    np.testing.assert_array_equal(plain.indices, packed.indices)
    np.testing.assert_array_equal(plain.distances, packed.distances)


def test_no_measured_time_chooses_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last bits would differ from run to run, and with them a ranking of near ties."""
    _product._has_packed.cache_clear()
    monkeypatch.setattr(_product, "_seconds", lambda work: pytest.fail("a race decides"))
    left, right = unit_rows(7, 16), unit_rows(9, 16, seed=1)
    torch.testing.assert_close(_product.multiplier(right)(left), left @ right.t())


def test_both_products_are_full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the training allows bfloat16 products: then 2e-3 would be the error, not 1e-6."""
    left, right = unit_rows(70, 256), unit_rows(90, 256, seed=1)
    true = (left.double() @ right.double().t()).float()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        for packed in (False, True):
            monkeypatch.setattr(_product, "_has_packed", lambda packed=packed: packed)
            torch.testing.assert_close(_product.multiplier(right)(left), true, rtol=0, atol=1e-6)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type(dtype: torch.dtype) -> None:
    features = unit_rows(60, 16).to(dtype)
    np.testing.assert_array_equal(knn_table(features, 5).indices, knn_table(features.float(), 5).indices)


def test_numpy_and_strided_input() -> None:
    features = unit_rows(60, 16)
    expected = knn_table(features, 5).indices
    np.testing.assert_array_equal(knn_table(features.numpy(), 5).indices, expected)
    wide = torch.zeros(60, 32)
    wide[:, ::2] = features
    np.testing.assert_array_equal(knn_table(wide[:, ::2], 5).indices, expected)


def test_ties_go_to_the_lower_index() -> None:
    features = unit_rows(10, 8).repeat(3, 1)  # rows i, i + 10, i + 20 are equal
    found = knn_table(features, 5)
    for row in range(30):
        np.testing.assert_array_equal(found.indices[row, :3], [row % 10, row % 10 + 10, row % 10 + 20])
    assert found.distances is not None
    np.testing.assert_array_equal(found.distances[:, :3], 0)


def test_constant_features_name_the_first_rows() -> None:
    found = knn_table(torch.ones(100, 16), 7)
    np.testing.assert_array_equal(found.indices, np.tile(np.arange(7), (100, 1)))


def test_unnormalised_features() -> None:
    features = unit_rows(200, 32) * torch.linspace(0.1, 50, 200)[:, None]
    assert_same_distances(knn_table(features, 20), naive(features, 20), scale=2500)


def test_k_is_clamped_and_self_is_first() -> None:
    found = knn_table(unit_rows(4, 8), 30)
    assert found.indices.shape == (4, 4)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(4))
    assert knn_table(unit_rows(1, 8), 30).indices.tolist() == [[0]]
    assert knn_table(torch.empty(0, 8), 30).indices.shape == (0, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_refuses_what_is_not_finite(value: float) -> None:
    features = unit_rows(20, 8)
    features[3, 2] = value
    with pytest.raises(ValueError, match="features has 1 rows with NaN"):
        knn_table(features, 5)


def test_refuses_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        knn_table(unit_rows(5, 8), 0)
    with pytest.raises(ValueError, match=r"gallery must be a \(N, D\) matrix"):
        as_matrix(torch.ones(5), "gallery")


def test_progress_reaches_the_total() -> None:
    calls: list[tuple[int, int]] = []
    knn_table(unit_rows(50, 8), 5, block=20, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(step, 6) for step in range(1, 7)]  # 3 blocks, every pair once


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("num", [1, 29, 30, 31, 3000])
def test_gpu_equals_cpu(num: int) -> None:
    features = unit_rows(num, 256)
    cpu, gpu = knn_table(features, 30), knn_table(features.cuda(), 30, block=1000)
    np.testing.assert_array_equal(cpu.indices, gpu.indices)
    np.testing.assert_array_equal(cpu.distances, gpu.distances)
