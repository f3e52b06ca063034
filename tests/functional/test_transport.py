"""Sinkhorn's iteration and the matching of its plan against the plain iteration, a worked figure and swapped sides."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dnreid_plugins.functional.matching.transport import sinkhorn, sinkhorn_argmax


def plain(cost: Tensor, exponent: float, row: Tensor, col: Tensor, rounds: int) -> Tensor:
    """The textbook iteration on the kernel itself."""
    kernel = torch.exp(-exponent * cost)
    u, v = torch.ones_like(row), torch.ones_like(col)
    for _ in range(rounds):
        u = row / (kernel @ v)
        v = col / (kernel.T @ u)
    return u[:, None] * kernel * v


def masses(count: int, generator: torch.Generator | None = None) -> Tensor:
    drawn = torch.ones(count) if generator is None else 0.2 + torch.rand(count, generator=generator)
    return drawn.double() / drawn.double().sum()


@pytest.mark.parametrize("exponent", [0.2, 5.0, 100.0])
@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3), (6, 6)])
@pytest.mark.parametrize("uniform", [True, False])
def test_sums_hold_and_the_plan_is_that_of_the_plain_iteration(
    rows: int, cols: int, exponent: float, uniform: bool
) -> None:
    generator = torch.Generator().manual_seed(rows * 10 + cols)
    cost = torch.rand(rows, cols, generator=generator, dtype=torch.float64)
    row, col = (masses(count, None if uniform else generator) for count in (rows, cols))
    plan = sinkhorn(-exponent * cost, row, col, tol=1e-4, max_iter=20000)
    assert plan.dtype == torch.float64 and bool((plan >= 0).all())
    torch.testing.assert_close(plan.sum(dim=1), row, rtol=0, atol=1e-4)
    torch.testing.assert_close(plan.sum(dim=0), col, rtol=0, atol=1e-12)
    for rounds in (1, 30):
        found = sinkhorn(-exponent * cost, row, col, tol=-1.0, max_iter=rounds)
        torch.testing.assert_close(found, plain(cost, exponent, row, col, rounds), rtol=1e-9, atol=1e-12)


def test_a_kernel_that_cannot_be_represented_is_no_problem() -> None:
    """Every entry of the kernel itself is 0 in float64."""
    cost = 20.0 + torch.rand(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert not bool(torch.exp(-100 * cost).any())
    plan = sinkhorn(-100 * cost, masses(4), masses(6), tol=1e-4)
    assert bool(torch.isfinite(plan).all())
    torch.testing.assert_close(plan.sum(dim=1), masses(4), rtol=0, atol=1e-4)
    torch.testing.assert_close(
        plan, sinkhorn(-100 * (cost - 20), masses(4), masses(6), 1e-4), rtol=1e-6, atol=1e-9
    )


def test_masses_that_were_rounded_do_not_keep_it_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third and a fifth in float32 have different sums."""
    rounds: list[int] = []
    exp = torch.exp
    monkeypatch.setattr(torch, "exp", lambda x: (rounds.append(1), exp(x))[1])
    row, col = torch.full((3,), 1 / 3), torch.full((5,), 1 / 5)
    assert float(row.double().sum()) != float(col.double().sum())
    sinkhorn(torch.rand(3, 5, generator=torch.Generator().manual_seed(0)), row, col)
    assert len(rounds) < 50


def test_it_ends_when_it_may_go_on_no_longer() -> None:
    cost = torch.rand(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    plan = sinkhorn(-300 * cost, masses(5), masses(5), max_iter=2)
    torch.testing.assert_close(plan.sum(dim=0), masses(5))
    assert float((plan.sum(dim=1) - masses(5)).abs().max()) > 1e-3


def test_no_mass_no_share() -> None:
    row = torch.tensor([0.5, 0.0, 0.5])
    plan = sinkhorn(torch.zeros(3, 2), row, masses(2))
    torch.testing.assert_close(plan, row.double()[:, None] / 2 * torch.ones(1, 2).double())


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_an_empty_side_gives_nothing(shape: tuple[int, int]) -> None:
    assert sinkhorn(torch.zeros(shape), *(torch.zeros(count) for count in shape)).shape == shape
    matched = sinkhorn_argmax(torch.zeros(shape))
    assert matched.day_to_night.tolist() == [-1] * shape[0]
    assert matched.night_to_day.tolist() == [-1] * shape[1]


def test_the_matching_of_the_reference() -> None:
    """The popular night cluster 0 is nearest to every day cluster and still does not get all of them."""
    similarity = torch.tensor([[0.9, 0.8], [0.85, 0.1], [0.2, 0.15]])
    matched = sinkhorn_argmax(torch.exp(-similarity))
    assert matched.day_to_night.tolist() == [1, 0, 1]
    assert matched.night_to_day.tolist() == [1, 2]
    assert similarity.argmax(dim=1).tolist() == [0, 0, 0]
    assert bool((matched.day_score > 0.5).all() and (matched.night_score > 1 / 3).all())


@pytest.mark.parametrize(("day", "night"), [(1, 1), (1, 5), (4, 4), (9, 5), (5, 9)])
@pytest.mark.parametrize("reg", [5.0, 0.05])
def test_swapping_the_sides_swaps_the_maps(day: int, night: int, reg: float) -> None:
    cost = torch.rand(day, night, generator=torch.Generator().manual_seed(day + night))
    one, other = sinkhorn_argmax(cost, reg), sinkhorn_argmax(cost.T, reg)
    assert torch.equal(one.day_to_night, other.night_to_day)
    assert torch.equal(one.night_to_day, other.day_to_night)
    torch.testing.assert_close(one.day_score, other.night_score)
    assert bool((one.day_to_night >= 0).all() and (one.night_to_day >= 0).all())


def test_the_only_cluster_of_a_side_goes_with_its_nearest() -> None:
    """Transport sends the same mass from it to all."""
    matched = sinkhorn_argmax(torch.tensor([[0.9, 0.4, 0.6]]))
    assert matched.day_to_night.tolist() == [1] and matched.night_to_day.tolist() == [0, 0, 0]


def test_equal_costs_go_to_the_lower_number() -> None:
    matched = sinkhorn_argmax(torch.full((3, 4), 0.7))
    assert matched.day_to_night.tolist() == [0, 0, 0] and matched.night_to_day.tolist() == [0, 0, 0, 0]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"shape \(2, 3\) and the masses are \(2, 2\); give one mass per row"
    ):
        sinkhorn(torch.zeros(2, 3), masses(2), masses(2))
    with pytest.raises(
        ValueError, match=r"sum to 1 and 2, the least is 0.5; give masses >= 0 with equal sums"
    ):
        sinkhorn(torch.zeros(2, 2), masses(2), 2 * masses(2))
    with pytest.raises(ValueError, match="the least is -0.5"):
        sinkhorn(torch.zeros(2, 2), torch.tensor([1.5, -0.5]), masses(2))
    with pytest.raises(ValueError, match="the least is -0.5"):
        sinkhorn(torch.zeros(2, 2), torch.tensor([1.5, -0.5]), torch.tensor([1.5, -0.5]))
    for reg in (0.0, -1.0):
        with pytest.raises(ValueError, match=f"reg must be > 0, got {reg}"):
            sinkhorn_argmax(torch.zeros(2, 2), reg=reg)
