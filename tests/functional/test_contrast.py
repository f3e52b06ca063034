"""ClusterNCE and the mutual mapping loss against loops, closed forms and invariances."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import cluster_nce, mapped_targets, mutual_mapping_loss


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def naive_cross(feature: Tensor, target: int, prototypes: Tensor, temperature: float) -> Tensor:
    exps = [torch.exp((feature * row).sum() / temperature) for row in prototypes]
    return -torch.log(exps[target] / sum(exps))


def naive_nce(features: Tensor, targets: Tensor, prototypes: Tensor, temperature: float) -> Tensor:
    terms = [
        naive_cross(f, int(t), prototypes, temperature)
        for f, t in zip(features, targets, strict=True)
        if t >= 0 and len(prototypes)
    ]
    return sum(terms, features.sum() * 0) / max(len(terms), 1)


def naive_mapping(
    features: Tensor, targets: Tensor, partner: Tensor, weight: Tensor, others: Tensor, temperature: float
) -> Tensor:
    terms = []
    for f, t in zip(features, targets, strict=True):
        if t >= 0 and len(others) and partner[t] >= 0:
            terms.append(weight[t] * naive_cross(f, int(partner[t]), others, temperature))
    return sum(terms, features.sum() * 0) / max(len(terms), 1)


def assert_same_with_gradients(fast: Tensor, slow: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(fast, slow)
    got = torch.autograd.grad(fast, inputs, allow_unused=True, materialize_grads=True)
    want = torch.autograd.grad(slow, inputs, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("clusters", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("batch", [0, 1, 4, 7])
def test_cluster_nce_equals_the_loop(batch: int, clusters: int) -> None:
    generator = torch.Generator().manual_seed(10 * batch + clusters)
    features = unit(generator, batch, 6).requires_grad_()
    prototypes = unit(generator, clusters, 6).requires_grad_()
    targets = torch.randint(-1, max(clusters, 1), (batch,), generator=generator) if clusters else -torch.ones(
        batch, dtype=torch.int64
    )  # fmt: skip
    fast = cluster_nce(features, targets, prototypes, temperature=0.1)
    slow = naive_nce(features, targets, prototypes, 0.1)
    assert_same_with_gradients(fast, slow, [features, prototypes])


@pytest.mark.parametrize(("own", "other"), [(1, 1), (3, 5), (5, 3), (4, 1), (1, 4), (0, 3), (3, 0)])
def test_mutual_mapping_equals_the_loop(own: int, other: int) -> None:
    generator = torch.Generator().manual_seed(own * 7 + other)
    features = unit(generator, 9, 6).requires_grad_()
    others = unit(generator, other, 6).requires_grad_()
    targets = torch.randint(-1, max(own, 1), (9,), generator=generator) if own else torch.full((9,), -1)
    partner = torch.randint(-1, other, (own,), generator=generator) if other else torch.full((own,), -1)
    weight = 1.0 + torch.rand(own, generator=generator, dtype=torch.float64)
    fast = mutual_mapping_loss(features, targets, partner, weight, others, temperature=0.1)
    slow = naive_mapping(features, targets, partner, weight, others, 0.1)
    assert_same_with_gradients(fast, slow, [features, others])


def test_coinciding_prototypes_cost_log_of_their_number() -> None:
    features = unit(torch.Generator().manual_seed(0), 5, 4)
    prototypes = features[:1].expand(7, 4)
    targets = torch.tensor([0, 3, 6, -1, 2])
    assert float(cluster_nce(features, targets, prototypes)) == pytest.approx(math.log(7), abs=1e-12)
    weight = torch.full((7,), 1.1, dtype=torch.float64)
    mapped = mutual_mapping_loss(features, targets, torch.arange(7).flip(0), weight, prototypes)
    assert float(mapped) == pytest.approx(1.1 * math.log(7), abs=1e-12)


def test_relabelling_the_clusters_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    features, own, other = unit(generator, 12, 8), unit(generator, 5, 8), unit(generator, 6, 8)
    targets = torch.randint(-1, 5, (12,), generator=generator)
    partner, weight = torch.tensor([2, -1, 0, 5, 3]), torch.rand(5, generator=generator, dtype=torch.float64)
    new_own, new_other = torch.randperm(5, generator=generator), torch.randperm(6, generator=generator)

    def renamed(labels: Tensor, names: Tensor) -> Tensor:
        return torch.where(labels >= 0, names[labels.clamp(min=0)], -1)

    shuffled_own, shuffled_other = torch.empty_like(own), torch.empty_like(other)
    shuffled_own[new_own], shuffled_other[new_other] = own, other
    shuffled_partner, shuffled_weight = torch.empty_like(partner), torch.empty_like(weight)
    shuffled_partner[new_own], shuffled_weight[new_own] = renamed(partner, new_other), weight
    new_targets = renamed(targets, new_own)
    torch.testing.assert_close(
        cluster_nce(features, targets, own), cluster_nce(features, new_targets, shuffled_own)
    )
    torch.testing.assert_close(
        mutual_mapping_loss(features, targets, partner, weight, other),
        mutual_mapping_loss(features, new_targets, shuffled_partner, shuffled_weight, shuffled_other),
    )


@pytest.mark.parametrize("case", ["outliers", "no prototypes", "no partner", "no own cluster"])
def test_nothing_to_contrast_gives_zero_with_a_graph(case: str) -> None:
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.full((3,), -1) if case in ("outliers", "no own cluster") else torch.tensor([0, 1, -1])
    rows = torch.zeros(0, 4) if case == "no prototypes" else torch.eye(4)
    if case in ("outliers", "no prototypes"):
        loss = cluster_nce(features, targets, rows)
    else:
        own = 0 if case == "no own cluster" else 2
        loss = mutual_mapping_loss(features, targets, torch.full((own,), -1), torch.ones(own), rows)
    assert loss.item() == 0.0 and loss.requires_grad
    loss.backward()
    assert features.grad is not None and not features.grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(2)
    features = unit(generator, 6, 16).to(dtype).requires_grad_()
    prototypes = unit(generator, 4, 16).float()
    targets = torch.tensor([0, 1, 2, 3, -1, 0])
    loss = cluster_nce(features, targets, prototypes)
    assert loss.dtype == torch.float32
    logits = features.detach().float() @ prototypes.T / 0.05
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets, ignore_index=-1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = cluster_nce(features.float(), targets, prototypes)
    torch.testing.assert_close(under_autocast, loss, rtol=0, atol=0)
    loss.backward()
    assert features.grad is not None and features.grad.dtype == dtype and features.grad.any()


def test_the_pair_weight_is_a_constant() -> None:
    generator = torch.Generator().manual_seed(3)
    features, others = unit(generator, 4, 5).requires_grad_(), unit(generator, 3, 5)
    weight = torch.ones(2, dtype=torch.float64, requires_grad=True)
    mutual_mapping_loss(features, torch.tensor([0, 1, 0, 1]), torch.tensor([2, 0]), weight, others).backward()
    assert weight.grad is None and features.grad is not None


def test_a_single_matched_sample_counts_whole() -> None:
    features, weight = torch.eye(3, dtype=torch.float64), torch.tensor([1.5, 1.0])
    targets, partner = torch.tensor([0, 1, -1]), torch.tensor([1, -1])
    want = naive_cross(features[0], 1, features, 0.1)
    got = mutual_mapping_loss(features, targets, partner, weight, features, temperature=0.1)
    torch.testing.assert_close(got, 1.5 * want)


@pytest.mark.parametrize("partner", [[], [2, -1]])
def test_targets_are_mapped_to_partners(partner: list[int]) -> None:
    targets = torch.tensor([-1, 0, 1] if partner else [-1, -1])
    want = [-1, 2, -1] if partner else [-1, -1]
    assert mapped_targets(targets, torch.tensor(partner, dtype=torch.int64)).tolist() == want


def test_refusals_name_the_value() -> None:
    features, targets = torch.eye(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="temperature must be > 0, got -1"):
        cluster_nce(features, targets, torch.eye(2), temperature=-1)
    with pytest.raises(ValueError, match="temperature must be > 0, got 0"):
        cluster_nce(features, targets, torch.eye(2), temperature=0)
    with pytest.raises(ValueError, match=r"one entry per cluster, got \(2,\) and \(3,\)"):
        mutual_mapping_loss(features, targets, targets, torch.ones(3), torch.eye(2))
