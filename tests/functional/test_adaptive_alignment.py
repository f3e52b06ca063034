"""The pair weights of CIA Eq. 10-13 and its loss against a loop that reads like the paper."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.adaptive_alignment import MaaReading, maa_loss, multi_factor_weights
from dnreid_plugins.functional.losses.mmd import PairBlocks, mmd2

SIZES = [(1, 1), (1, 4), (4, 1), (7, 8), (8, 8), (9, 8)]


def unit(generator: torch.Generator, size: int, shift: float = 0.0) -> Tensor:
    raw = torch.randn(size, 5, generator=generator, dtype=torch.float64) + shift
    return F.normalize(raw, dim=1)


def case(num_day: int, num_night: int, shift: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(100 * num_day + num_night)
    return (
        unit(generator, num_day, shift).requires_grad_(),
        unit(generator, num_night, shift).requires_grad_(),
        torch.randint(-1, 3, (num_day,), generator=generator),
        torch.randint(-1, 3, (num_night,), generator=generator),
        torch.tensor([2, -1, 0]),
    )


def naive_weights(
    day: Tensor,
    night: Tensor,
    targets_day: Tensor,
    targets_night: Tensor,
    partner: Tensor | None,
    back: Tensor | None = None,
) -> PairBlocks:
    def cosine(a: Tensor, b: Tensor) -> float:
        return ((a * b).sum() / (a.norm() * b.norm())).item()

    def intra(rows: Tensor, targets: Tensor, scale: float) -> Tensor:
        weight = torch.ones(len(rows), len(rows), dtype=torch.float64)
        for i in range(len(rows)):
            for j in range(len(rows)):
                if targets[i] == targets[j] and targets[i] >= 0:
                    weight[i, j] = 1.0 + scale * (1.0 - cosine(rows[i], rows[j]))
        return weight

    cross = [[cosine(x, y) for y in night] for x in day]
    s_ada = 0.1 + sum(sum(line) for line in cross) / (len(day) * len(night))
    weight = torch.ones(len(day), len(night), dtype=torch.float64)
    for i in range(len(day)):
        for j in range(len(night)):
            s, base, sim, label = cross[i][j], 1.0, 1.0, 1.0
            if s > 0:
                base = 0.9
                if s > s_ada:
                    sim = 1.0 + 0.9 * (1.0 - (1.0 - s) ** 2)
                    c, d = int(targets_day[i]), int(targets_night[j])
                    if c >= 0 and d >= 0:
                        there = partner is not None and partner[c] == d
                        label = 1.1 if there or (back is not None and back[d] == c) else 1.0
            weight[i, j] = base * sim * label
    return PairBlocks(intra(day, targets_day, 0.30), intra(night, targets_night, 0.35), weight)


@pytest.mark.parametrize(("num_day", "num_night"), SIZES)
@pytest.mark.parametrize("shift", [-1.0, 0.0, 0.3, 2.0])
@pytest.mark.parametrize("maps", [0, 1, 2])
def test_weights_equal_the_loop(num_day: int, num_night: int, shift: float, maps: int) -> None:
    day, night, targets_day, targets_night, partner = case(num_day, num_night, shift)
    night = -night if shift < 0 else night
    both = (partner, torch.tensor([1, 1, -1]))  # several night clusters have the same day partner
    args = (day, night, targets_day, targets_night, *both[:maps], *[None] * (maps == 0))
    got = multi_factor_weights(*args, alpha_0=0.9)
    for block, want in zip(got, naive_weights(*args), strict=True):
        torch.testing.assert_close(block, want)
        assert not block.requires_grad


@pytest.mark.parametrize(("num_day", "num_night"), SIZES)
def test_loss_is_the_weighted_mmd_with_constant_weights(num_day: int, num_night: int) -> None:
    day, night, targets_day, targets_night, partner = case(num_day, num_night)
    weights = naive_weights(day, night, targets_day, targets_night, partner)
    want = mmd2(day, night, weights=weights)
    got = maa_loss(day, night, targets_day, targets_night, partner, alpha_0=0.9)
    torch.testing.assert_close(got.loss, want)
    torch.testing.assert_close(
        torch.autograd.grad(got.loss, [day, night]), torch.autograd.grad(want, [day, night])
    )
    ratio = weights.day_night.mean() / ((weights.day_day.mean() + weights.night_night.mean()) / 2)
    torch.testing.assert_close(got.cross_to_intra, ratio)
    assert not got.cross_to_intra.requires_grad


@pytest.mark.parametrize("reading", ["silent", "attract", "root"])
@pytest.mark.parametrize(("num_day", "num_night"), SIZES)
def test_other_readings_equal_the_loop(num_day: int, num_night: int, reading: MaaReading) -> None:
    day, night, targets_day, targets_night, partner = case(num_day, num_night)
    weights = naive_weights(day, night, targets_day, targets_night, partner)
    if reading == "silent":
        cross = (day @ night.T).detach()
        for i in range(num_day):
            for j in range(num_night):
                if cross[i, j] <= max(0.1 + float(cross.mean()), 0.0):
                    weights.day_night[i, j] = 0.0
    elif reading == "attract":
        for block, targets in ((weights.day_day, targets_day), (weights.night_night, targets_night)):
            for i in range(len(targets)):
                for j in range(len(targets)):
                    if targets[i] == targets[j] != -1:
                        block[i, j] *= -1
    want = mmd2(day, night, weights=weights)
    if reading == "root":
        want = max(want, want.new_tensor(1e-6)).sqrt()
    got = maa_loss(day, night, targets_day, targets_night, partner, alpha_0=0.9, reading=reading).loss
    torch.testing.assert_close(got, want)
    if want.requires_grad:
        both = torch.autograd.grad(got, [day, night]), torch.autograd.grad(want, [day, night])
        torch.testing.assert_close(*both)


def test_worked_weights() -> None:
    day = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    night = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])
    got = multi_factor_weights(day, night, torch.tensor([0, 0]), torch.tensor([1, 0]), torch.tensor([1]))
    # Cross cosines 1, -0.6 / 0, 0.8 with mean 0.3, so S_ada = 0.4.
    sim = 1 + 1 - 0.2**2
    torch.testing.assert_close(got.day_night, torch.tensor([[2 * 1.1, 1.0], [1.0, sim]]))
    torch.testing.assert_close(got.day_day, torch.tensor([[1.0, 1.3], [1.3, 1.0]]))
    torch.testing.assert_close(got.night_night, torch.ones(2, 2))


def test_switched_off_factors_leave_the_plain_mmd() -> None:
    day, night, targets_day, targets_night, partner = case(8, 8, 0.0)
    got = maa_loss(
        day, night, targets_day, targets_night, partner, s_0=9.0, intra_day=0.0, intra_night=0.0
    )  # fmt: skip
    torch.testing.assert_close(got.loss, mmd2(day, night))
    assert float(got.cross_to_intra) == pytest.approx(1.0)


def test_relabelling_the_clusters_of_one_domain_changes_nothing() -> None:
    day, night, targets_day, targets_night, partner = case(9, 8)
    names = torch.tensor([1, 2, 0])

    def renamed(labels: Tensor) -> Tensor:
        return torch.where(labels >= 0, names[labels.clamp(min=0)], -1)

    moved = torch.empty_like(partner)
    moved[names] = partner
    base = maa_loss(day, night, targets_day, targets_night, partner).loss
    torch.testing.assert_close(maa_loss(day, night, renamed(targets_day), targets_night, moved).loss, base)
    torch.testing.assert_close(
        maa_loss(day, night, targets_day, renamed(targets_night), renamed(partner)).loss, base
    )
    # Without a matching the numbers of one domain have no meaning in the other.
    free = maa_loss(day, night, targets_day, targets_night).loss
    torch.testing.assert_close(maa_loss(day, night, renamed(targets_day), targets_night).loss, free)


def test_collapse_is_rewarded_once_cross_weights_lead() -> None:
    """Reference section 5: at total collapse the loss is 10 (b - a), below zero when a > b."""
    collapsed = torch.ones(4, 8, requires_grad=True)
    got = maa_loss(collapsed, torch.ones(4, 8), torch.zeros(4).long(), torch.zeros(4).long(), s_0=-0.1)
    assert float(got.cross_to_intra) == pytest.approx(2.0)
    assert got.loss.item() == pytest.approx(10.0 * (1.0 - 2.0), abs=1e-5)


@pytest.mark.parametrize("reading", ["printed", "root"])
@pytest.mark.parametrize(("num_day", "num_night"), [(0, 3), (3, 0)])
def test_an_empty_side_gives_zero_with_a_graph(num_day: int, num_night: int, reading: MaaReading) -> None:
    day, night = torch.randn(num_day, 4, requires_grad=True), torch.randn(num_night, 4, requires_grad=True)
    targets = torch.zeros(num_day).long(), torch.zeros(num_night).long()
    got = maa_loss(day, night, *targets, torch.tensor([0]), reading=reading)
    assert got.loss.item() == 0.0 and got.loss.requires_grad and float(got.cross_to_intra) == 1.0


def test_half_precision_is_computed_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    day, night = (unit(generator, 8).half().requires_grad_() for _ in range(2))
    targets = torch.arange(8) // 4
    got = maa_loss(day, night, targets, targets, torch.tensor([1, 0]))
    want = maa_loss(day.detach().float(), night.detach().float(), targets, targets, torch.tensor([1, 0]))
    assert got.loss.dtype == torch.float32
    torch.testing.assert_close(got.loss, want.loss)
    got.loss.backward()
    assert day.grad is not None and bool(torch.isfinite(day.grad).all())
