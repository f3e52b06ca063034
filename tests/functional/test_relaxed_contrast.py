"""Relaxed contrast against a loop, the figure of the reference, and what a weight of zero means."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dnreid_plugins.functional.losses.relaxed_contrast import relaxed_contrast


def naive(x: Tensor, *, normalise: bool) -> Tensor:
    if normalise:
        x = torch.stack([row / row.norm() for row in x]) if len(x) else x
    count, total = len(x), x.sum() * 0
    for i in range(count):
        distances = [
            (x[i] - x[j]).norm() if j != i and not torch.equal(x[i], x[j]) else None for j in range(count)
        ]
        known = [one for one in distances if one is not None]
        mean = sum(known) / count if known else 1.0
        for j, one in enumerate(distances):
            if j != i:
                weight = 1.0 if one is None else math.exp(-(float(one.detach()) ** 2))
                relative = 0.0 * x.sum() if one is None else one / mean
                total = total + weight * relative**2 + (1 - weight) * torch.relu(1 - relative) ** 2
    return total / max(count * (count - 1), 1)


def test_the_figure_of_the_reference() -> None:
    points = torch.tensor([[30.0, 0.0], [31.0, 0.0], [0.0, 30.0]])
    assert float(relaxed_contrast(points, normalise=False)) == pytest.approx(0.18339, abs=1e-5)
    assert float(relaxed_contrast(points)) == float(relaxed_contrast(points, normalise=True)) != 0.18339


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 9])
def test_it_equals_the_loop(count: int, normalise: bool) -> None:
    generator = torch.Generator().manual_seed(count)
    x = torch.randn(count, 5, generator=generator, dtype=torch.float64).requires_grad_()
    fast, slow = relaxed_contrast(x, normalise=normalise), naive(x, normalise=normalise)
    torch.testing.assert_close(fast, slow)
    got, want = torch.autograd.grad(fast, x)[0], torch.autograd.grad(slow, x)[0]
    torch.testing.assert_close(got, want)
    assert count < 3 or float(got.norm()) > 0


def test_the_weights_are_constants_and_the_rest_has_the_right_gradient() -> None:
    """With the weights held as they are, finite differences must agree."""
    x = 0.5 * torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.exp(-torch.cdist(x, x).square())

    def held(z: Tensor) -> Tensor:
        distance = torch.where(torch.eye(4) > 0, 0.0, (torch.cdist(z, z)))
        relative = distance / distance.mean(dim=1, keepdim=True)
        return (weight * relative**2 + (1 - weight) * torch.relu(1 - relative) ** 2).sum() / 12

    x.requires_grad_()
    torch.testing.assert_close(relaxed_contrast(x, normalise=False), held(x))
    assert torch.autograd.gradcheck(held, x)
    got = torch.autograd.grad(relaxed_contrast(x, normalise=False), x)[0]
    torch.testing.assert_close(got, torch.autograd.grad(held(x), x)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [[0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0, 1]])
def test_equal_rows_have_a_finite_gradient(rows: list[int], dtype: torch.dtype) -> None:
    x = torch.randn(2, 64, generator=torch.Generator().manual_seed(1), dtype=dtype)[torch.tensor(rows)]
    x.requires_grad_()
    for normalise in (True, False):
        loss = relaxed_contrast(x, normalise=normalise)
        assert torch.isfinite(loss) and bool(torch.isfinite(torch.autograd.grad(loss, x)[0]).all())


def test_long_features_are_only_pushed_and_unit_ones_also_drawn_together() -> None:
    """Two near rows among others: the released input drives them apart, unit rows bring them together."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(6, 256, generator=generator, dtype=torch.float64)
    x[1] = x[0] + 0.3 * torch.randn(256, generator=generator, dtype=torch.float64)
    for normalise, apart in ((False, True), (True, False)):
        z = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(relaxed_contrast(z, normalise=normalise), z)
        moved = x - 1e-3 * gradient / gradient.norm()
        before, after = (float((p[0] / p[0].norm() - p[1] / p[1].norm()).norm()) for p in (x, moved))
        assert (after > before) == apart
