"""The triplet losses against figures by hand, loops over the images, and invariances."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dnreid_plugins.functional.losses.triplets import centre_triplet, hard_triplet, weighted_triplet

LINE = torch.tensor([[0.0], [1.0], [3.0], [5.0]], dtype=torch.float64)
TWO = torch.tensor([0, 0, 1, 1])
CENTRES = torch.tensor([0.0, 10.0, 20.0, 10.2])


def distance(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).square().sum().clamp(min=1e-12).sqrt()


def softmax_mean(values: list[Tensor], sign: float, zeros: int, as_released: bool) -> Tensor:
    """The values weighted by exp(sign * value); as released, ``zeros`` masked pairs take part in the maximum."""
    scores = [sign * value for value in values]
    if not as_released:
        powers = [(score - max(scores)).exp() for score in scores]
        return sum(p * v for p, v in zip(powers, values)) / sum(powers)
    top = max(scores) if not zeros else torch.maximum(max(scores), torch.zeros_like(scores[0]))
    powers = [(score - top).exp() for score in scores]
    return sum(p * v for p, v in zip(powers, values)) / (sum(powers) + 1e-6)


def slow_weighted(x: Tensor, y: Tensor, squared: bool = False, as_released: bool = False) -> Tensor:
    terms = []
    known = [i for i in range(len(y)) if y[i] >= 0]
    for i in known:
        same = [distance(x[i], x[j]) for j in known if y[j] == y[i]]
        others = [distance(x[i], x[j]) for j in known if y[j] != y[i]]
        if others:
            furthest = softmax_mean(same, 1.0, len(others), as_released)
            closest = softmax_mean(others, -1.0, len(same), as_released)
            difference = furthest - closest
            if squared:
                difference = difference.sign() * torch.minimum(difference**2, torch.tensor(88.0).to(x))
            terms.append(torch.log1p(difference.exp()))
    return sum(terms, x.sum() * 0) / max(len(terms), 1)


def slow_hard(x: Tensor, y: Tensor, domains: Tensor | None = None, margin: float = 0.3) -> Tensor:
    terms = []
    for i in range(len(y)):
        near = [j for j in range(len(y)) if y[j] >= 0 and (domains is None or domains[j] == domains[i])]
        same = [distance(x[i], x[j]) for j in near if y[j] == y[i]]
        others = [distance(x[i], x[j]) for j in near if y[j] != y[i]]
        if y[i] >= 0 and others:
            terms.append((max(same) - min(others) + margin).clamp(min=0))
    return sum(terms, x.sum() * 0) / max(len(terms), 1)


def slow_centre(x: Tensor, y: Tensor, stride: int | None = None, margin: float = 0.7) -> Tensor:
    x, y = x[y >= 0], y[y >= 0]
    centres = [x[y == one].mean(dim=0) for one in y]
    pull = [distance(row, centre) for row, centre in zip(x, centres)]
    push = []
    for i in range(0, len(y), stride or 1):
        short = [
            (margin - distance(centres[i], centres[j])).clamp(min=0) for j in range(len(y)) if y[j] != y[i]
        ]
        if short:
            push.append(sum(short) / len(short))
    zero = x.sum() * 0
    return sum(pull, zero) / max(len(pull), 1) + sum(push, zero) / max(len(push), 1)


PAIRS: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "weighted": (weighted_triplet, slow_weighted),
    "weighted, squared": (
        lambda x, y: weighted_triplet(x, y, squared=True),
        lambda x, y: slow_weighted(x, y, squared=True),
    ),
    "weighted, as released": (
        lambda x, y: weighted_triplet(x, y, as_released=True),
        lambda x, y: slow_weighted(x, y, as_released=True),
    ),
    "hard": (lambda x, y: hard_triplet(x, y, margin=0.3), slow_hard),
    "hard within domains": (
        lambda x, y: hard_triplet(x, y, margin=0.3, domains=torch.arange(len(y)) % 2),
        lambda x, y: slow_hard(x, y, torch.arange(len(y)) % 2),
    ),
    "centre": (centre_triplet, slow_centre),
    "centre with a stride": (
        lambda x, y: centre_triplet(x, y, stride=3),
        lambda x, y: slow_centre(x, y, stride=3),
    ),
}
LABELS = {
    "no image": [],
    "one image": [0],
    "outliers only": [-1, -1],
    "one identity": [2, 2, 2],
    "one identity and an outlier": [0, -1, 0],
    "two images of two": [0, 1],
    "unequal": [0, 3, 0, 0, -1, 1, 3, 0, 1],
    "all different": [0, 1, 2, 3],
}


def drawn(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed + count)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64).mul(0.5).requires_grad_()


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_equal_to_the_loop_in_value_and_gradient(name: str, labels: list[int]) -> None:
    fast, slow = PAIRS[name]
    x, y = drawn(len(labels)), torch.tensor(labels, dtype=torch.int64)
    losses = fast(x, y), slow(x, y)
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*(torch.autograd.grad(loss, x)[0] for loss in losses))


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_by_differences(name: str) -> None:
    y = torch.tensor([0, 3, 0, 0, -1, 1, 3, 0, 1])
    assert torch.autograd.gradcheck(lambda x: PAIRS[name][0](x, y), drawn(9, seed=4))


@pytest.mark.parametrize("name", [name for name in PAIRS if "stride" not in name and "domains" not in name])
def test_the_order_of_the_images_does_not_matter(name: str) -> None:
    fast, x, y = PAIRS[name][0], drawn(9), torch.tensor(LABELS["unequal"])
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fast(x[order], y[order]), fast(x, y))


@pytest.mark.parametrize("name", PAIRS)
def test_equal_features_have_a_finite_gradient(name: str) -> None:
    x = torch.ones(6, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(PAIRS[name][0](x, torch.tensor([0, 0, 1, 1, 2, -1])), x)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize(
    ("squared", "total", "anchors"),
    [(False, 0.2070, (0.0783, 0.2001, 0.4713, 0.0783)), (True, 0.1686, (0.00186, 0.0981, 0.5727, 0.00186))],
)
def test_weighted_by_hand(squared: bool, total: float, anchors: tuple[float, ...]) -> None:
    """Points 0, 1 | 3, 5 on a line: furthest .7311 .7311 1.7616 1.7616, closest 3.2383 2.2384 2.2689 4.2688."""
    assert weighted_triplet(LINE, TWO, squared=squared).item() == pytest.approx(total, abs=1e-4)
    furthest = torch.tensor([0.7311, 0.7311, 1.7616, 1.7616])
    difference = furthest - torch.tensor([3.2383, 2.2384, 2.2689, 4.2688])
    if squared:
        difference = difference.sign() * difference.square()
    assert torch.nn.functional.softplus(difference).tolist() == pytest.approx(list(anchors), abs=2e-4)


@pytest.mark.parametrize(
    ("apart", "closest", "released"), [(20.0, 2.07, 17.93), (15.0, 14.17, 1.19), (5.0, 5.0, 0.69)]
)
def test_the_released_weights_vanish_at_large_distances(
    apart: float, closest: float, released: float
) -> None:
    """8 identities x 8 images, all equally far apart: 56 negatives, whose mean distance should be just that one."""
    x, y = torch.eye(64, dtype=torch.float64) * apart / 2**0.5, torch.arange(64) // 8
    assert weighted_triplet(x, y).item() == pytest.approx(0.69, abs=0.02)
    loss = weighted_triplet(x, y, as_released=True).item()
    assert loss == pytest.approx(released, abs=0.02)
    assert loss == pytest.approx(torch.tensor(apart - closest).exp().log1p().item(), abs=0.02)


def test_the_square_is_bounded() -> None:
    x = torch.tensor([[0.0], [100.0], [100.0]], requires_grad=True)
    loss = weighted_triplet(x, torch.tensor([0, 0, 1]), squared=True)
    # Differences of the anchors: 100 - 100 = 0, 100 - 0, 0 - 0.
    assert loss.item() == pytest.approx((0.6931 + 88.0 + 0.6931) / 3, abs=1e-3)


def test_hardest_by_hand_in_the_batch_and_in_the_domain() -> None:
    # Furthest 1, 1, 2, 2, nearest 3, 2, 2, 4 without domains.
    assert hard_triplet(LINE, TWO, margin=1.0).item() == pytest.approx((0 + 0 + 1 + 0) / 4)
    # Domains {0, 3} and {1, 5}: no positive but the anchor itself, negatives at 3 and 4.
    domains = torch.tensor([0, 1, 0, 1])
    assert hard_triplet(LINE, TWO, margin=3.5, domains=domains).item() == pytest.approx(
        (0.5 + 0.5) / 4, abs=1e-5
    )


def test_an_image_whose_domain_has_no_other_identity_is_no_anchor() -> None:
    # By day (0, 1) there is one identity; at night 3 and 5 are 2 apart, each the only image of its own.
    y, domains = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    assert hard_triplet(LINE, y, margin=3.0, domains=domains).item() == pytest.approx(1.0, abs=1e-5)


def points_of_two_domains() -> tuple[Tensor, Tensor]:
    """Two images per identity and domain, all at their identity's centre; as in the released batches by domain."""
    return CENTRES.repeat_interleave(2).repeat(2)[:, None].clone(), torch.arange(4).repeat_interleave(
        2
    ).repeat(2)


def test_close_centres_repel_and_a_stride_passes_them_by() -> None:
    x, y = points_of_two_domains()
    assert centre_triplet(x, y).item() == pytest.approx(0.0833, abs=1e-4)
    assert centre_triplet(x, y, stride=4).item() == pytest.approx(0.0, abs=1e-5)
    assert centre_triplet(x, y, stride=1).item() == centre_triplet(x, y).item()


def test_centre_by_hand() -> None:
    # Centres .5 and 4: pulls .5 .5 1 1; 3.5 apart of a margin of 4.
    assert centre_triplet(LINE, TWO, margin=4.0).item() == pytest.approx(0.75 + 0.5)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="margin is -1; it must be at least 0"):
        hard_triplet(LINE, TWO, margin=-1)
    with pytest.raises(ValueError, match="margin is nan"):
        centre_triplet(LINE, TWO, margin=float("nan"))
    with pytest.raises(ValueError, match="stride is 0; it must be at least 1, or None"):
        centre_triplet(LINE, TWO, stride=0)
