"""CPML and its variants against loops over pairs, values and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.cpml import batch_centroid_cpml, instance_cpml, released_cpml, row_cpml
from dnreid_plugins.functional.matching.mutual_topk import NeighbourPartition, mutual_topk_partition

TAU = 0.07
# (clusters day, clusters night, k): one, K-1, K, K+1, rectangular.
SHAPES = [(1, 1, 1), (1, 4, 3), (4, 1, 3), (3, 3, 4), (4, 4, 4), (5, 5, 4), (6, 9, 3), (9, 6, 3), (12, 12, 4)]


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


class Case:
    def __init__(self, num_day: int, num_night: int, k: int, batch: int = 11) -> None:
        generator = torch.Generator().manual_seed(31 * num_day + num_night)
        self.rows_day, self.rows_night = unit(generator, num_day, 6), unit(generator, num_night, 6)
        self.partition = mutual_topk_partition(self.rows_day @ self.rows_night.T, k)
        self.day = unit(generator, batch, 6).requires_grad_()
        self.night = unit(generator, batch, 6).requires_grad_()
        self.targets_day = torch.randint(-1, num_day, (batch,), generator=generator)
        self.targets_night = torch.randint(-1, num_night, (batch,), generator=generator)

    def run(self, loss: Callable[..., Tensor]) -> Tensor:
        return loss(
            self.day,
            self.targets_day,
            self.night,
            self.targets_night,
            self.rows_day,
            self.rows_night,
            self.partition,
            temperature=TAU,
        )


def naive_term(positive: Tensor, negatives: list[Tensor]) -> Tensor:
    top = torch.exp(positive / TAU)
    return -torch.log(top / (top + sum(torch.exp(n / TAU) for n in negatives)))


def naive_direction(
    queries: list[tuple[Tensor, int]], keys: Tensor, positives: Tensor, hard: Tensor
) -> tuple[Tensor | float, list[Tensor]]:
    """Mean over queries of the mean over positives, and all pair terms in one list."""
    per_query, pairs = [], []
    for query, cluster in queries:
        negatives = [(query * keys[h]).sum() for h in range(len(keys)) if hard[cluster, h]]
        good = [(query * keys[j]).sum() for j in range(len(keys)) if positives[cluster, j]]
        if negatives and good:
            terms = [naive_term(p, negatives) for p in good]
            per_query.append(sum(terms) / len(terms))
            pairs += terms
    return (sum(per_query) / len(per_query) if per_query else 0.0), pairs


def naive_instance(
    day: Tensor, targets_day: Tensor, night: Tensor, targets_night: Tensor, rows_day: Tensor,
    rows_night: Tensor, partition: NeighbourPartition, *, temperature: float,
) -> Tensor:  # fmt: skip
    queries_day = [(f, int(t)) for f, t in zip(day, targets_day, strict=True) if t >= 0]
    queries_night = [(f, int(t)) for f, t in zip(night, targets_night, strict=True) if t >= 0]
    a, _ = naive_direction(queries_day, rows_night, partition.positives, partition.hard_day)
    b, _ = naive_direction(queries_night, rows_day, partition.positives.T, partition.hard_night.T)
    return (a + b) / 2 + (day.sum() + night.sum()) * 0


def naive_centroid(day: Tensor, targets_day: Tensor, night: Tensor, targets_night: Tensor,
                   *rest: object, temperature: float) -> Tensor:  # fmt: skip
    def means(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        clusters = sorted(set(targets[targets >= 0].tolist()))
        rows = [features[targets == c].mean(0) for c in clusters]
        return torch.stack([row / row.norm() for row in rows]), torch.tensor(clusters)

    return naive_instance(
        *means(day, targets_day), *means(night, targets_night), *rest, temperature=temperature
    )  # type: ignore[arg-type]


def assert_same_with_gradients(fast: Tensor, slow: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(torch.autograd.grad(fast, inputs), torch.autograd.grad(slow, inputs))


@pytest.mark.parametrize("shape", SHAPES)
def test_instance_equals_the_loop(shape: tuple[int, int, int]) -> None:
    case = Case(*shape)
    assert_same_with_gradients(case.run(instance_cpml), case.run(naive_instance), [case.day, case.night])


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_centroid_equals_the_loop(shape: tuple[int, int, int]) -> None:
    case = Case(*shape)
    assert_same_with_gradients(
        case.run(batch_centroid_cpml), case.run(naive_centroid), [case.day, case.night]
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_equal_the_loop(shape: tuple[int, int, int]) -> None:
    case = Case(*shape)
    heads = [(3.0 * rows).requires_grad_() for rows in (case.rows_day, case.rows_night)]
    day, night = (head / head.norm(dim=1, keepdim=True) for head in heads)
    means = []
    for rows, keys, positives, hard in [
        (day, night, case.partition.positives, case.partition.hard_day),
        (night, day, case.partition.positives.T, case.partition.hard_night.T),
    ]:
        _, pairs = naive_direction(list(zip(rows, range(len(rows)), strict=True)), keys, positives, hard)
        means.append(sum(pairs) / max(len(pairs), 1))
    slow = (means[0] + means[1]) / 2 + sum(head.sum() for head in heads) * 0
    assert_same_with_gradients(row_cpml(*heads, case.partition, temperature=TAU), slow, heads)


def naive_released(case: Case) -> float:
    total = 0.0
    for rows, keys, positives, hard in [
        (case.rows_day, case.rows_night, case.partition.positives, case.partition.hard_day),
        (case.rows_night, case.rows_day, case.partition.positives.T, case.partition.hard_night.T),
    ]:
        terms = []
        for i in range(len(rows)):
            logits = [float(rows[i] @ key) / TAU for key in keys]
            for j in range(len(keys)):
                if not positives[i, j]:
                    continue
                negatives = [logits[h] for h in range(len(keys)) if hard[i, h]]
                below = [logits[j], *negatives] if negatives else logits[:j] + logits[j + 1 :]
                if below:
                    terms.append(math.log(sum(math.exp(x) for x in below)) - logits[j])
        total += sum(terms) / max(len(terms), 1)
    return total / 2


@pytest.mark.parametrize("shape", SHAPES)
def test_released_value_and_missing_gradient(shape: tuple[int, int, int]) -> None:
    case = Case(*shape)
    rows = case.rows_day.clone().requires_grad_(), case.rows_night.clone().requires_grad_()
    got = released_cpml(*rows, case.partition, temperature=TAU)
    assert not got.requires_grad
    assert float(got) == pytest.approx(naive_released(case), abs=1e-9)


def test_released_value_is_unbounded_where_ours_is_not() -> None:
    """Two perfect pairs, k = 1: no hard negative exists, and the released term is (-1 - 1) / tau."""
    rows = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    partition = mutual_topk_partition(rows @ rows.T, 1)
    assert float(released_cpml(rows, rows, partition)) == pytest.approx(-2 / 0.07)
    assert float(row_cpml(rows, rows, partition)) == 0.0


def test_coinciding_prototypes_cost_log_of_one_plus_the_hard_negatives() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = unit(generator, 1, 6).expand(8, 6)
    positives = torch.eye(8, dtype=torch.bool)
    hard = torch.zeros(8, 8, dtype=torch.bool)
    for i in range(8):
        hard[i, [(i + 1) % 8, (i + 2) % 8, (i + 3) % 8]] = True
    partition = NeighbourPartition(positives, hard, hard.T.contiguous())
    features = unit(generator, 5, 6)
    targets = torch.tensor([0, 3, 7, -1, 2])
    args = (features, targets, features, targets, rows, rows, partition)
    for loss in (instance_cpml(*args), batch_centroid_cpml(*args), row_cpml(rows, rows, partition)):
        assert float(loss) == pytest.approx(math.log(4), abs=1e-9)


@pytest.mark.parametrize("loss", [instance_cpml, batch_centroid_cpml])
def test_relabelling_the_night_clusters_changes_nothing(loss: Callable[..., Tensor]) -> None:
    case = Case(6, 9, 3)
    before = case.run(loss)
    names = torch.randperm(9, generator=torch.Generator().manual_seed(0))
    back = torch.argsort(names)
    case.rows_night = case.rows_night[back]
    case.partition = NeighbourPartition(*(mask[:, back] for mask in case.partition))
    case.targets_night = torch.where(case.targets_night >= 0, names[case.targets_night.clamp(min=0)], -1)
    torch.testing.assert_close(case.run(loss), before)


@pytest.mark.parametrize("loss", [instance_cpml, batch_centroid_cpml])
@pytest.mark.parametrize("empty", ["outliers", "no night cluster", "no clusters", "no positives"])
def test_nothing_to_match_gives_zero_with_a_graph(loss: Callable[..., Tensor], empty: str) -> None:
    case = Case(4, 4, 2)
    if empty == "outliers":
        case.targets_day, case.targets_night = torch.full((11,), -1), torch.full((11,), -1)
    elif empty == "no positives":
        nothing = torch.zeros(4, 4, dtype=torch.bool)
        case.partition = NeighbourPartition(nothing, ~nothing, ~nothing)
    else:
        case.targets_night, case.rows_night = torch.full((11,), -1), case.rows_night[:0]
        if empty == "no clusters":
            case.targets_day, case.rows_day = torch.full((11,), -1), case.rows_day[:0]
        case.partition = mutual_topk_partition(case.rows_day @ case.rows_night.T, 2)
    result = case.run(loss)
    assert result.item() == 0.0 and result.requires_grad
    for gradient in torch.autograd.grad(result, [case.day, case.night]):
        assert not gradient.any() and bool(torch.isfinite(gradient).all())
    if empty != "outliers":
        assert float(row_cpml(case.rows_day, case.rows_night, case.partition)) == 0.0
        assert float(released_cpml(case.rows_day, case.rows_night, case.partition)) == 0.0


@pytest.mark.parametrize("loss", [instance_cpml, batch_centroid_cpml])
def test_gradient_reaches_the_features_of_both_domains(loss: Callable[..., Tensor]) -> None:
    case = Case(12, 12, 4)
    result = case.run(loss)
    assert result.item() > 0
    for gradient, targets in zip(
        torch.autograd.grad(result, [case.day, case.night]),
        [case.targets_day, case.targets_night],
        strict=True,
    ):
        assert gradient.any() and not gradient[targets < 0].any()


def test_half_precision_is_computed_in_float32() -> None:
    case = Case(12, 12, 4)
    want = case.run(instance_cpml).item()
    case.day, case.night = (x.detach().half().requires_grad_() for x in (case.day, case.night))
    case.rows_day, case.rows_night = case.rows_day.float(), case.rows_night.float()
    got = case.run(instance_cpml)
    assert got.dtype == torch.float32 and got.item() == pytest.approx(want, abs=0.02)
    got.backward()
    assert case.day.grad is not None and bool(torch.isfinite(case.day.grad).all()) and case.day.grad.any()


def test_a_single_pair_counts_whole() -> None:
    generator = torch.Generator().manual_seed(2)
    day, night = unit(generator, 2, 4), unit(generator, 2, 4)
    at = torch.zeros(3, 2, 2, dtype=torch.bool)
    at[0, 0, 0] = at[1, 0, 1] = at[2, 1, 0] = True
    partition = NeighbourPartition(positives=at[0], hard_day=at[1], hard_night=at[2])
    table = day @ night.T / TAU
    want = 0.5 * (F.softplus(table[0, 1] - table[0, 0]) + F.softplus(table[1, 0] - table[0, 0]))
    torch.testing.assert_close(row_cpml(day, night, partition, temperature=TAU), want)
    torch.testing.assert_close(released_cpml(day, night, partition, temperature=TAU), want)
    first = torch.tensor([0])
    got = instance_cpml(day[:1], first, night[:1], first, day, night, partition, temperature=TAU)
    torch.testing.assert_close(got, want)


def test_refusals_name_the_value() -> None:
    case = Case(4, 5, 2)
    with pytest.raises(ValueError, match=r"partition is for \(4, 5\) clusters but there are \(4, 4\) rows"):
        row_cpml(case.rows_day, case.rows_night[:4], case.partition)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"temperature must be > 0, got {wrong}"):
            released_cpml(case.rows_day, case.rows_night, case.partition, temperature=wrong)
