"""Updates of memory rows against a loop over instances."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dnreid_plugins.functional.memory_update import updated_rows

POLICIES = ["sequential", "mean", "hardest"]


def unit(generator: torch.Generator, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1).to(dtype)


def naive_update(rows: Tensor, features: Tensor, targets: Tensor, momentum: float, policy: str) -> Tensor:
    rows = rows.clone()
    if policy == "sequential":
        for feature, target in zip(features, targets, strict=True):
            if target >= 0:
                mixed = momentum * rows[target] + (1 - momentum) * feature
                rows[target] = mixed / mixed.norm()
        return rows
    for cluster in range(len(rows)):
        members = [f for f, t in zip(features, targets, strict=True) if t == cluster]
        if not members:
            continue
        instance = sum(members) / len(members)
        if policy == "hardest":
            instance = min(members, key=lambda f: float((f * rows[cluster]).sum()))
        mixed = momentum * rows[cluster] + (1 - momentum) * instance
        rows[cluster] = mixed / mixed.norm()
    return rows


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=60, deadline=None)
@given(
    clusters=st.integers(1, 6),
    batch=st.integers(0, 17),
    momentum=st.sampled_from([0.0, 0.1, 0.2, 0.9, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_equals_the_loop(policy: str, clusters: int, batch: int, momentum: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows, features = unit(generator, clusters, 5), unit(generator, batch, 5)
    targets = torch.randint(-1, clusters, (batch,), generator=generator)
    got = updated_rows(rows, features, targets, momentum=momentum, policy=policy)  # type: ignore[arg-type]
    want = naive_update(rows, features, targets, momentum, policy)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
    torch.testing.assert_close(got.norm(dim=1), torch.ones(clusters, dtype=torch.float64))


@pytest.mark.parametrize("policy", POLICIES)
def test_float32_stays_within_a_millionth_of_the_loop_and_inputs_stay_untouched(policy: str) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = unit(generator, 16, 64, dtype=torch.float32)
    features = unit(generator, 256, 64, dtype=torch.float32)
    targets = torch.arange(16).repeat_interleave(16)[torch.randperm(256, generator=generator)]
    kept = rows.clone()
    got = updated_rows(rows, features, targets, momentum=0.1, policy=policy)  # type: ignore[arg-type]
    torch.testing.assert_close(got, naive_update(rows, features, targets, 0.1, policy), rtol=0, atol=1e-6)
    assert torch.equal(rows, kept) and got.dtype == torch.float32


@pytest.mark.parametrize("policy", POLICIES)
def test_absent_clusters_and_outliers_leave_rows_bit_equal(policy: str) -> None:
    generator = torch.Generator().manual_seed(1)
    rows, features = unit(generator, 4, 8), unit(generator, 3, 8)
    got = updated_rows(rows, features, torch.tensor([2, -1, 2]), momentum=0.1, policy=policy)  # type: ignore[arg-type]
    assert torch.equal(got[[0, 1, 3]], rows[[0, 1, 3]]) and not torch.equal(got[2], rows[2])
    untouched = updated_rows(rows, features, torch.full((3,), -1), momentum=0.1, policy=policy)  # type: ignore[arg-type]
    assert torch.equal(untouched, rows)
    empty = updated_rows(rows[:0], features, torch.full((3,), -1), momentum=0.1, policy=policy)  # type: ignore[arg-type]
    assert empty.shape == (0, 8)


def test_momentum_zero_leaves_the_last_the_mean_or_the_hardest_instance() -> None:
    rows = torch.tensor([[1.0, 0.0]])
    features = torch.tensor([[0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    targets = torch.zeros(3, dtype=torch.int64)
    for policy, expected in [("sequential", features[2]), ("hardest", features[1])]:
        got = updated_rows(rows, features, targets, momentum=0.0, policy=policy)  # type: ignore[arg-type]
        torch.testing.assert_close(got[0], expected)
    mean = updated_rows(rows, features, targets, momentum=0.0, policy="mean")
    torch.testing.assert_close(mean[0], F.normalize(features.mean(0), dim=0))


@pytest.mark.parametrize("policy", POLICIES)
def test_an_opposite_instance_that_would_erase_the_row_leaves_it(policy: str) -> None:
    rows = torch.tensor([[0.6, 0.8]])
    got = updated_rows(rows, -rows, torch.tensor([0]), momentum=0.5, policy=policy)  # type: ignore[arg-type]
    torch.testing.assert_close(got, rows)


def test_no_gradient_is_recorded() -> None:
    features = torch.eye(2, requires_grad=True)
    assert not updated_rows(torch.eye(2), features, torch.tensor([0, 1]), momentum=0.5).requires_grad


def test_refusals_name_the_value() -> None:
    rows, targets = torch.eye(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"momentum must lie in \[0, 1\], got 1.5"):
        updated_rows(rows, rows, targets, momentum=1.5)
    with pytest.raises(ValueError, match="got 'median'"):
        updated_rows(rows, rows, targets, momentum=0.1, policy="median")  # type: ignore[arg-type]
