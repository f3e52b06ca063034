"""Contrast with several prototypes per cluster against loops, the figures of the reference and invariances."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import cluster_nce
from dnreid_plugins.functional.losses.hybrid import dynamic_nce, hybrid_nce


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def drawn_targets(generator: torch.Generator, clusters: int, batch: int) -> Tensor:
    if clusters == 0:
        return torch.full((batch,), -1)
    return torch.randint(-1, clusters, (batch,), generator=generator)


def mean_cross(features: Tensor, targets: Tensor, logits: list[list[Tensor]]) -> Tensor:
    terms = [
        torch.log(sum(torch.exp(one) for one in row)) - row[t]
        for row, t in zip(logits, targets.tolist(), strict=True)
        if t >= 0 and row
    ]
    return sum(terms, features.sum() * 0) / max(len(terms), 1)


def naive_hybrid(
    f: Tensor, y: Tensor, mean: Tensor, hard: Tensor, temperature: float, floor: float
) -> Tensor:
    at_mean, at_hard = (
        mean_cross(f, y, [[(x * row).sum() / temperature for row in rows] for x in f])
        for rows in (mean, hard)
    )
    above = at_mean - floor if float(at_mean.detach()) > floor else at_mean * 0
    return (at_hard + above) / 2


def naive_dynamic(f: Tensor, y: Tensor, rows: Tensor, temperature: float) -> Tensor:
    logits = []
    for x, target in zip(f, y.tolist(), strict=True):
        of_clusters = []
        for cluster, own in enumerate(rows):
            all_of_it = torch.stack([(x * row).sum() / temperature for row in own])
            of_clusters.append(all_of_it.min() if cluster == target else all_of_it.max())
        logits.append(of_clusters)
    return mean_cross(f, y, logits)


def assert_same_with_gradients(fast: Tensor, slow: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(fast, slow)
    got = torch.autograd.grad(fast, inputs, allow_unused=True, materialize_grads=True)
    want = torch.autograd.grad(slow, inputs, allow_unused=True, materialize_grads=True)
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("mean", "expected"), [((2.0, 0.0), 0.15663), ((1.0, 0.0), 0.21326)])
def test_hybrid_gives_the_figures_of_the_reference(mean: tuple[float, float], expected: float) -> None:
    """One image with the logits ``mean`` and (1, 0): below the floor and above it."""
    image = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    rows = [torch.tensor(logits, dtype=torch.float64)[:, None] * image for logits in (mean, (1.0, 0.0))]
    loss = hybrid_nce(image, torch.tensor([0]), *rows, temperature=1.0)
    assert float(loss) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("floor", [-math.inf, -1.0, 0.0])
def test_hybrid_without_a_floor_and_with_equal_rows_is_the_plain_contrast(floor: float) -> None:
    generator = torch.Generator().manual_seed(3)
    features, rows = unit(generator, 7, 6), unit(generator, 4, 6)
    targets = drawn_targets(generator, 4, 7)
    loss = hybrid_nce(features, targets, rows, rows.clone(), floor=floor)
    torch.testing.assert_close(loss, cluster_nce(features, targets, rows))


@pytest.mark.parametrize("floor", [0.0, 0.2, 1.5, 50.0])
@pytest.mark.parametrize("clusters", [0, 1, 3])
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_hybrid_equals_the_loop(batch: int, clusters: int, floor: float) -> None:
    generator = torch.Generator().manual_seed(10 * batch + clusters)
    features = unit(generator, batch, 6).requires_grad_()
    mean, hard = (unit(generator, clusters, 6).requires_grad_() for _ in range(2))
    targets = drawn_targets(generator, clusters, batch)
    fast = hybrid_nce(features, targets, mean, hard, temperature=0.3, floor=floor)
    slow = naive_hybrid(features, targets, mean, hard, 0.3, floor)
    assert_same_with_gradients(fast, slow, [features, mean, hard])


def test_dynamic_gives_the_figure_of_the_reference() -> None:
    """Similarities .9 and .5 with the own rows, .3 and .7 with the other ones."""
    image = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    cosines = torch.tensor([[0.9, 0.5], [0.3, 0.7]], dtype=torch.float64)
    rows = torch.stack([cosines, (1 - cosines.square()).sqrt()], dim=2)
    assert float(dynamic_nce(image, torch.tensor([0]), rows)) == pytest.approx(4.01815, abs=1e-5)
    assert 4.01815 == pytest.approx(math.log(1 + math.exp(4)), abs=1e-5)


@pytest.mark.parametrize("rows_each", [1, 2, 5])
@pytest.mark.parametrize("clusters", [0, 1, 3])
@pytest.mark.parametrize("batch", [0, 1, 7])
def test_dynamic_equals_the_loop(batch: int, clusters: int, rows_each: int) -> None:
    generator = torch.Generator().manual_seed(10 * batch + clusters)
    features = unit(generator, batch, 6).requires_grad_()
    rows = unit(generator, clusters, rows_each, 6).requires_grad_()
    targets = drawn_targets(generator, clusters, batch)
    fast = dynamic_nce(features, targets, rows, temperature=0.3)
    assert_same_with_gradients(fast, naive_dynamic(features, targets, rows, 0.3), [features, rows])


def test_dynamic_with_one_row_each_is_the_plain_contrast_and_repeated_rows_change_nothing() -> None:
    generator = torch.Generator().manual_seed(5)
    features, rows, targets = (
        unit(generator, 6, 5),
        unit(generator, 3, 2, 5),
        torch.tensor([0, 2, 1, -1, 1, 0]),
    )
    torch.testing.assert_close(
        dynamic_nce(features, targets, rows[:, :1]), cluster_nce(features, targets, rows[:, 0])
    )
    twice = torch.cat([rows, rows[:, 1:], rows], dim=1)
    torch.testing.assert_close(dynamic_nce(features, targets, twice), dynamic_nce(features, targets, rows))


@pytest.mark.parametrize("case", ["outliers", "no row", "no image"])
def test_nothing_to_contrast_gives_zero_with_a_graph(case: str) -> None:
    features = torch.randn(0 if case == "no image" else 2, 4, requires_grad=True)
    targets = torch.full((len(features),), -1 if case == "outliers" else 0)
    rows = torch.zeros(0, 4) if case == "no row" else torch.eye(4)
    for loss in (hybrid_nce(features, targets, rows, rows), dynamic_nce(features, targets, rows[:, None])):
        assert loss.item() == 0.0
        (gradient,) = torch.autograd.grad(loss, features)
        assert torch.equal(gradient, torch.zeros_like(features))


def test_gradients_are_right() -> None:
    generator = torch.Generator().manual_seed(2)
    features, targets = unit(generator, 4, 5).requires_grad_(), torch.tensor([0, 2, -1, 1])
    mean, hard, sets = unit(generator, 3, 5), unit(generator, 3, 5), unit(generator, 3, 4, 5)
    assert torch.autograd.gradcheck(lambda f: hybrid_nce(f, targets, mean, hard, temperature=0.3), features)
    assert torch.autograd.gradcheck(lambda f: dynamic_nce(f, targets, sets, temperature=0.3), features)


def test_half_precision_is_computed_in_full() -> None:
    generator = torch.Generator().manual_seed(4)
    features, rows, targets = (
        unit(generator, 3, 6).half(),
        unit(generator, 2, 6).float(),
        torch.tensor([0, 1, 1]),
    )
    assert hybrid_nce(features, targets, rows, rows).dtype == torch.float32
    assert dynamic_nce(features, targets, rows[:, None]).dtype == torch.float32


def test_what_cannot_be_is_refused() -> None:
    features, targets, rows = torch.eye(2), torch.tensor([0, 1]), torch.eye(2)
    with pytest.raises(ValueError, match=r"mean_rows and hard_rows have the shapes \(2, 2\) and \(1, 2\)"):
        hybrid_nce(features, targets, rows, rows[:1])
    for loss in (hybrid_nce(features, targets, rows, rows), dynamic_nce(features, targets, rows[:, None])):
        assert torch.isfinite(loss)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"temperature must be > 0, got {wrong}"):
            dynamic_nce(features, targets, rows[:, None], temperature=wrong)
