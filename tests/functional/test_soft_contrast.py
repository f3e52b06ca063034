"""The soft contrast against a loop, against the hard one, and in degenerate cases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import cluster_nce
from dnreid_plugins.functional.losses.soft_contrast import soft_nce
from dnreid_plugins.functional.neighbours.soft_targets import SoftTargets, neighbour_soft_targets


def made(batch: int, clusters: int, k: int = 4) -> tuple[Tensor, Tensor, Tensor, SoftTargets]:
    """Features, prototypes, labels and soft targets; outliers among them."""
    generator = torch.Generator().manual_seed(10 * batch + clusters)
    features = F.normalize(torch.randn(batch, 6, generator=generator, dtype=torch.float64), dim=1)
    rows = F.normalize(torch.randn(clusters, 6, generator=generator, dtype=torch.float64), dim=1)
    labels = torch.randint(-1, max(clusters, 1), (batch,), generator=generator)
    near = torch.randint(-1, max(clusters, 1), (batch, k), generator=generator)
    if not clusters:
        labels, near = torch.full_like(labels, -1), torch.full_like(near, -1)
    soft = neighbour_soft_targets(near, torch.full((clusters,), 5), labels, sharpness=1.0)
    return features.requires_grad_(), rows.requires_grad_(), labels, soft


def slow(features: Tensor, soft: SoftTargets, rows: Tensor, temperature: float) -> Tensor:
    terms = []
    for i, feature in enumerate(features):
        if soft.clusters[i, 0] >= 0 and len(rows):
            exps = [torch.exp(feature @ row / temperature) for row in rows]
            term = features.sum() * 0
            for c, share in zip(soft.clusters[i].tolist(), soft.shares[i].tolist(), strict=True):
                if c >= 0:
                    term = term - share * torch.log(exps[c] / sum(exps))
            terms.append(float(soft.weight[i]) * term)
    return sum(terms, features.sum() * 0) / max(len(terms), 1)


@pytest.mark.parametrize("clusters", [0, 1, 3, 5])
@pytest.mark.parametrize("batch", [0, 1, 4, 9])
def test_it_equals_the_loop(batch: int, clusters: int) -> None:
    features, rows, _, soft = made(batch, clusters)
    fast = soft_nce(features, soft, rows, temperature=0.1)
    want = slow(features, soft, rows, 0.1)
    torch.testing.assert_close(fast, want)
    got, expected = (
        torch.autograd.grad(one, [features, rows], allow_unused=True, materialize_grads=True)
        for one in (fast, want)
    )
    torch.testing.assert_close(got, expected)


def test_its_gradient_is_that_of_differences() -> None:
    features, rows, _, soft = made(5, 3)
    assert torch.autograd.gradcheck(lambda f, r: soft_nce(f, soft, r, temperature=0.5), (features, rows))


@pytest.mark.parametrize(("batch", "clusters"), [(0, 3), (1, 1), (9, 5), (4, 0)])
def test_one_hot_targets_of_weight_1_give_the_hard_contrast(batch: int, clusters: int) -> None:
    features, rows, labels, _ = made(batch, clusters)
    soft, hard = soft_nce(features, SoftTargets.hard(labels), rows), cluster_nce(features, labels, rows)
    torch.testing.assert_close(soft, hard, rtol=0, atol=1e-12)
    for one in (soft, hard):
        assert one.requires_grad
    got, want = (torch.autograd.grad(one, features)[0] for one in (soft, hard))
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("case", ["outliers", "no prototypes", "no trust"])
def test_nothing_to_learn_gives_zero_with_a_graph(case: str) -> None:
    features, rows, _, soft = made(4, 3)
    if case == "outliers":
        soft = SoftTargets.hard(torch.full((4,), -1))
    if case == "no trust":
        soft = SoftTargets(soft.clusters, soft.shares, torch.zeros(4))
    loss = soft_nce(features, soft, rows[:0] if case == "no prototypes" else rows)
    assert loss.item() == 0.0
    assert not torch.autograd.grad(loss, features)[0].any()


def test_half_precision_is_computed_in_float32_and_targets_are_constants() -> None:
    features, rows, _, soft = made(6, 4)
    shares = soft.shares.clone().requires_grad_()
    half = features.detach().half().requires_grad_()
    loss = soft_nce(half, SoftTargets(soft.clusters, shares, soft.weight), rows.detach().float())
    assert loss.dtype == torch.float32
    loss.backward()
    assert (
        shares.grad is None and half.grad is not None and half.grad.dtype == torch.float16 and half.grad.any()
    )


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_temperature_that_is_not_positive_is_refused(wrong: float) -> None:
    features, rows, _, soft = made(1, 1)
    with pytest.raises(ValueError, match=f"temperature must be > 0, got {wrong}"):
        soft_nce(features, soft, rows, temperature=wrong)
