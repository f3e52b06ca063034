"""Kernels, MMD and Margin-MMD against loops over pairs, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.mmd import PairBlocks, gaussian_kernels, margin_mmd, mmd2

SIZES = [(1, 1), (1, 4), (4, 1), (3, 5), (4, 4)]


def features(seed: int, size: int, dim: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, dim, generator=generator, dtype=torch.float64).requires_grad_()


def naive_kernel(day: Tensor, night: Tensor) -> list[list[Tensor]]:
    """MMD-ReID's kernel matrix of the joint batch, pair by pair."""
    joint = [*day, *night]
    n = len(joint)
    distance = [[((a - b) ** 2).sum() for b in joint] for a in joint]
    mean = sum(float(d.detach()) for line in distance for d in line) / (n * n - n)
    widths = [mean / 4 * 2**m + 1e-9 for m in range(5)]
    return [[sum((torch.exp(-d / w) for w in widths), d * 0) for d in line] for line in distance]


def naive_mmd2(day: Tensor, night: Tensor, weights: PairBlocks | None = None) -> Tensor:
    kernel = naive_kernel(day, night)
    p, q = len(day), len(night)
    total = day.sum() * 0
    for a in range(p + q):
        for b in range(p + q):
            if a < p and b < p:
                sign, count, block, i, j = 1, p * p, 0, a, b
            elif a >= p and b >= p:
                sign, count, block, i, j = 1, q * q, 1, a - p, b - p
            else:
                sign, count, block, i, j = -1, p * q, 2, min(a, b), max(a, b) - p
            weight = 1.0 if weights is None else weights[block][i, j]
            total = total + sign * weight * kernel[a][b] / count
    return total


def assert_same_with_gradients(fast: Tensor, slow: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(fast, slow, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(
        torch.autograd.grad(fast, inputs), torch.autograd.grad(slow, inputs), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(("num_day", "num_night"), SIZES)
def test_kernels_equal_the_loop(num_day: int, num_night: int) -> None:
    day, night = features(0, num_day), features(1, num_night)
    want = torch.stack([torch.stack(line) for line in naive_kernel(day, night)])
    got = gaussian_kernels(day, night)
    torch.testing.assert_close(got.day_day, want[:num_day, :num_day])
    torch.testing.assert_close(got.night_night, want[num_day:, num_day:])
    torch.testing.assert_close(got.day_night, want[:num_day, num_day:])


@pytest.mark.parametrize(("num_day", "num_night"), SIZES)
@pytest.mark.parametrize("weighted", [False, True])
def test_mmd_equals_the_loop(num_day: int, num_night: int, weighted: bool) -> None:
    day, night = features(0, num_day), features(1, num_night)
    weights = None
    if weighted:
        generator = torch.Generator().manual_seed(2)
        shapes = [(num_day, num_day), (num_night, num_night), (num_day, num_night)]
        weights = PairBlocks(*(torch.rand(s, generator=generator, dtype=torch.float64) for s in shapes))
    assert_same_with_gradients(
        mmd2(day, night, weights=weights), naive_mmd2(day, night, weights), [day, night]
    )


def test_unit_weights_give_the_released_formula_of_equal_batches() -> None:
    day, night = features(0, 4), features(1, 4)
    kernel = torch.stack([torch.stack(line) for line in naive_kernel(day, night)])
    released = (kernel[:4, :4] + kernel[4:, 4:] - kernel[:4, 4:] - kernel[4:, :4]).mean()
    ones = PairBlocks(*(torch.ones(4, 4, dtype=torch.float64) for _ in range(3)))
    torch.testing.assert_close(mmd2(day, night, weights=ones), released)
    torch.testing.assert_close(mmd2(day, night), released)


def test_same_samples_on_both_sides_have_no_discrepancy() -> None:
    day = features(0, 5)
    order = torch.tensor([3, 1, 4, 0, 2])
    assert mmd2(day, day.detach()[order]).item() == pytest.approx(0.0, abs=1e-12)


def test_two_points_have_a_closed_form() -> None:
    # The mean squared distance is the distance itself, so the widths are d/4 ... 4d.
    day, night = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    want = 2 * (5 - sum(math.exp(-1 / w) for w in (0.25, 0.5, 1, 2, 4)))
    assert float(mmd2(day, night)) == pytest.approx(want, abs=1e-6)


def test_coinciding_features_are_finite_with_zero_gradient() -> None:
    day = torch.ones(3, 8, requires_grad=True)
    loss = mmd2(day, torch.ones(3, 8))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert day.grad is not None and not day.grad.any()


@pytest.mark.parametrize(("num_day", "num_night"), [(0, 3), (3, 0), (0, 0)])
def test_an_empty_side_gives_zero_with_a_graph(num_day: int, num_night: int) -> None:
    day, night = features(0, num_day), features(1, num_night)
    for loss in (mmd2(day, night), margin_mmd(day, night)):
        assert loss.item() == 0.0 and loss.requires_grad
        torch.autograd.grad(loss, [day, night])


def test_half_precision_is_computed_in_float32() -> None:
    day, night = (features(s, 4, 64).detach().half().requires_grad_() for s in (0, 1))
    loss = mmd2(day, night)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, mmd2(day.detach().float(), night.detach().float()))
    loss.backward()
    assert day.grad is not None and bool(torch.isfinite(day.grad).all()) and day.grad.any()


def naive_margin(
    day: Tensor, night: Tensor, targets_day: Tensor, targets_night: Tensor, partner: Tensor, margin: float
) -> Tensor:
    total, groups = day.sum() * 0, 0
    for cluster, other in enumerate(partner.tolist()):
        mine, theirs = day[targets_day == cluster], night[targets_night == other]
        if other >= 0 and len(mine) and len(theirs):
            groups += 1
            term = naive_mmd2(mine, theirs)
            total = total + (term if float(term.detach()) > margin else 0 * term)
    return total / max(groups, 1)


@pytest.mark.parametrize("margin", [0.0, 1.4, 3.0, 99.0])
def test_margin_mmd_equals_the_loop_over_matched_clusters(margin: float) -> None:
    day, night = features(0, 9), features(1, 8)
    targets_day = torch.tensor([0, 0, 1, 1, 1, 2, 3, -1, -1])
    targets_night = torch.tensor([2, 2, 0, 0, 0, 1, -1, 1])
    partner = torch.tensor([2, 0, -1, 5, 1])
    fast = margin_mmd(day, night, targets_day, targets_night, partner, margin=margin)
    slow = naive_margin(day, night, targets_day, targets_night, partner, margin)
    assert_same_with_gradients(fast, slow, [day, night])
    assert (fast.item() > 0) == (margin < 5)


def test_a_term_above_the_margin_counts_fully() -> None:
    day, night = features(0, 4), features(1, 4)
    whole = mmd2(day, night)
    torch.testing.assert_close(margin_mmd(day, night, margin=whole.item() - 1e-6), whole)
    below = margin_mmd(day, night, margin=whole.item() + 1e-6)
    assert below.item() == 0.0 and not any(g.any() for g in torch.autograd.grad(below, [day, night]))


def test_no_matched_pair_in_the_batch_gives_zero_with_a_graph() -> None:
    day, night = features(0, 2), features(1, 2)
    targets = torch.tensor([0, 1])
    for partner in (torch.tensor([-1, -1]), torch.zeros(0, dtype=torch.int64), torch.tensor([7, 8])):
        loss = margin_mmd(day, night, targets if len(partner) else targets * 0 - 1, targets, partner)
        assert loss.item() == 0.0 and loss.requires_grad


@pytest.mark.parametrize(
    "given", [{}, {"targets_day": torch.zeros(2).long()}, {"targets_night": torch.zeros(2).long()}]
)
def test_a_map_without_targets_is_refused(given: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="map without targets"):
        margin_mmd(features(0, 2), features(1, 2), day_to_night=torch.tensor([0]), **given)


def test_relabelling_changes_nothing() -> None:
    day, night = features(0, 6), features(1, 6)
    targets, names = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([2, 0, 1])
    partner = torch.tensor([1, 2, 0])
    renamed = torch.empty_like(partner)
    renamed[names] = partner
    torch.testing.assert_close(
        margin_mmd(day, night, targets, targets, partner, margin=0.1),
        margin_mmd(day, night, names[targets], targets, renamed, margin=0.1),
    )
    torch.testing.assert_close(
        margin_mmd(day, night, targets, targets, partner, margin=0.1),
        margin_mmd(day, night, targets, names[targets], names[partner], margin=0.1),
    )


def test_unit_features_far_apart_stay_below_ten() -> None:
    day = F.normalize(torch.ones(4, 8), dim=1)
    assert 5 < float(mmd2(day, -day)) < 10


def test_a_sample_is_at_distance_zero_from_itself_even_for_long_float32_features() -> None:
    day = 300 + 36 * features(0, 6, 512).detach()
    night = 300 + 36 * features(1, 6, 512).detach()
    got, want = gaussian_kernels(day.float(), night.float()), gaussian_kernels(day, night)
    assert got.day_day.diagonal().tolist() == [5.0] * 6
    torch.testing.assert_close(got.day_night.double(), want.day_night, rtol=0, atol=1e-2)


@pytest.mark.parametrize(("size", "floor"), [(4, 1.55), (32, 0.195)])
def test_equal_distributions_have_a_floor_set_by_the_sample_size(size: int, floor: float) -> None:
    """In high dimension all distances agree, which leaves 2/size * (5 - sum of exp(-1/w))."""
    day, night = features(0, size, 4096).detach(), features(1, size, 4096).detach()
    assert mmd2(day, night).item() == pytest.approx(floor, abs=0.02)
    arithmetic = 2 / size * (5 - sum(math.exp(-1 / w) for w in (0.25, 0.5, 1, 2, 4)))
    assert mmd2(day, night).item() == pytest.approx(arithmetic, abs=0.02)


@pytest.mark.parametrize(("num_day", "num_night"), [(1, 4), (3, 5), (4, 4)])
def test_a_single_kernel_has_the_mean_distance_as_its_width(num_day: int, num_night: int) -> None:
    day, night = features(1, num_day), features(2, num_night)
    joint = [*day, *night]
    distance = [[float(((a - b) ** 2).sum().detach()) for b in joint] for a in joint]
    width = sum(map(sum, distance)) / (len(joint) * (len(joint) - 1)) + 1e-9
    kernel = [[math.exp(-d / width) for d in line] for line in distance]

    def mean(rows: range, columns: range) -> float:
        return sum(kernel[i][j] for i in rows for j in columns) / (len(rows) * len(columns))

    first, second = range(num_day), range(num_day, len(joint))
    expected = mean(first, first) + mean(second, second) - 2 * mean(first, second)
    assert float(mmd2(day, night, num_kernels=1).detach()) == pytest.approx(expected, abs=1e-12)
    whole = margin_mmd(day, night, margin=-1.0, num_kernels=1)
    assert float(whole.detach()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("noise", [1e-3, 1e-4])
def test_near_collapse_float32_equals_float64(noise: float) -> None:
    """All features within ``noise`` of one point: their squared distances are far below the rounding of 1."""
    centre = F.normalize(torch.ones(1, 64, dtype=torch.float64), dim=1)
    day, night = (F.normalize(centre + noise * features(s, 8, 64).detach(), dim=1).float() for s in (0, 1))
    for got, want in zip(
        gaussian_kernels(day, night), gaussian_kernels(day.double(), night.double()), strict=True
    ):
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-4)
    values, slopes = [], []
    for dtype in (torch.float32, torch.float64):
        rows = day.to(dtype).requires_grad_()
        loss = mmd2(rows, night.to(dtype))
        values.append(loss.item())
        slopes.append(torch.autograd.grad(loss, rows)[0].double())
    assert values[0] == pytest.approx(values[1], abs=1e-4)
    assert float((slopes[0] - slopes[1]).norm() / slopes[1].norm()) < 1e-3


def test_a_pair_that_only_the_other_map_names_is_a_group() -> None:
    day, night = features(0, 4), features(1, 4)
    targets_day, targets_night = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2])
    groups = {(0, 0): ([0, 1], [0]), (1, 0): ([2, 3], [0]), (1, 1): ([2, 3], [1, 2]), (0, 2): ([0, 1], [3])}
    got = margin_mmd(
        day, night, targets_day, targets_night, torch.tensor([0, 0]), torch.tensor([-1, 1, 0]), margin=0.0
    )
    want = torch.stack([naive_mmd2(day[d], night[n]) for d, n in groups.values()]).mean()
    assert_same_with_gradients(got, want, [day, night])


def test_the_inverse_map_of_a_one_to_one_matching_changes_no_bit() -> None:
    day, night = features(0, 6), features(1, 6)
    targets = torch.tensor([0, 0, 1, 1, 2, 2])
    args = (day, night, targets, targets, torch.tensor([2, 0, 1]))
    assert torch.equal(margin_mmd(*args, margin=0.1), margin_mmd(*args, torch.tensor([1, 2, 0]), margin=0.1))


def test_an_even_number_of_kernels_has_one_more_narrow_than_wide() -> None:
    day, night = torch.tensor([[0.0]], dtype=torch.float64), torch.tensor([[1.0]], dtype=torch.float64)
    kernel = gaussian_kernels(day, night, num_kernels=2).day_night.item()
    assert kernel == pytest.approx(math.exp(-1 / 0.5) + math.exp(-1))
