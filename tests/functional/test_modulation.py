"""Glare mask, structure enhancement, class attention and the mask loss against figures by hand and slow twins."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dnreid_plugins.functional.losses.glare import mask_loss
from dnreid_plugins.functional.modulation import (
    class_attention,
    enhance_structure,
    glare_mask,
    partner_attention,
    pooled_to,
)

# ------------------------------------------------------------------ glare


def slow_mask(image: Tensor, threshold: float = 220.0) -> Tensor:
    """Pixel by pixel: is there a 3 x 3 square inside the image, all of it bright, that holds the pixel?"""
    _, height, width = image.shape
    bright = [
        [
            float(0.299 * image[0, y, x] + 0.587 * image[1, y, x] + 0.114 * image[2, y, x]) > threshold
            for x in range(width)
        ]
        for y in range(height)
    ]
    result = torch.zeros(1, height, width)
    for y in range(1, height - 1):
        for x in range(1, width - 1):
            square = [(y + a, x + b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
            if all(bright[a][b] for a, b in square):
                for a, b in square:
                    result[0, a, b] = 1
    return result


def spots(height: int = 24, width: int = 36) -> Tensor:
    """A dark image with lamps of several sizes, two of them at the border."""
    image = torch.rand(3, height, width) * 150
    for top, left, size in ((2, 3, 5), (10, 20, 3), (15, 8, 2), (18, 30, 6), (0, 14, 4), (12, 12, 1)):
        image[:, top : top + size, left : left + size] = 250
    return image


@pytest.mark.parametrize("size", [(24, 36), (7, 5), (3, 3), (2, 9), (1, 1)])
def test_the_mask_is_that_of_the_slow_twin(size: tuple[int, int]) -> None:
    image = spots(*size) if min(size) > 4 else torch.full((3, *size), 250.0)
    assert torch.equal(glare_mask(image[None])[0], slow_mask(image))
    assert glare_mask(image[None][:0]).shape == (0, 1, *size)


def test_spots_of_less_than_three_pixels_and_dark_images_have_no_glare() -> None:
    mask = glare_mask(spots()[None])[0, 0]
    assert mask[2:7, 3:8].all() and mask[10:13, 20:23].all() and mask[0:4, 14:18].all()
    assert not mask[15:17, 8:10].any() and mask[12, 12] == 0 and mask.sum() == 25 + 9 + 36 + 16
    assert not glare_mask(torch.full((1, 3, 9, 9), 220.0)).any(), "the threshold itself is not above it"


def test_the_luminance_is_that_of_rgb() -> None:
    """Red and green are bright (0.886 x 255 = 225.9), green and blue are not (0.701 x 255 = 178.8)."""
    warm, cold = (torch.zeros(1, 3, 5, 5) for _ in range(2))
    warm[:, :2], cold[:, 1:] = 255, 255
    assert glare_mask(warm).all() and not glare_mask(cold).any()
    swapped = (0.114, 0.587, 0.299)
    assert not glare_mask(warm, weights=swapped).any() and glare_mask(cold, weights=swapped).all()


def test_the_mask_goes_with_its_image_through_every_geometry() -> None:
    """Mirrored exactly; cropped exactly but for spots that the new border cuts; an erased part has none."""
    image = spots()
    mask = glare_mask(image[None])
    assert torch.equal(glare_mask(image.flip(-1)[None]), mask.flip(-1))
    for top, left in ((0, 0), (1, 2), (4, 3), (3, 0)):
        cropped = glare_mask(image[None, :, top : top + 18, left : left + 27])
        whole = mask[:, :, top : top + 18, left : left + 27]
        assert torch.equal(cropped[..., 2:-2, 2:-2], whole[..., 2:-2, 2:-2]) and bool(
            (cropped <= whole).all()
        )
    padded = torch.nn.functional.pad(image, (10, 10, 10, 10))
    assert torch.equal(glare_mask(padded[None])[..., 10:-10, 10:-10], mask)
    erased = image.clone()
    erased[:, 1:9, 1:9] = 116
    expected = mask.clone()
    expected[..., 2:7, 3:8] = 0
    assert torch.equal(glare_mask(erased[None]), expected)


def test_pooling_shifts_with_the_image_and_follows_the_size_of_the_map() -> None:
    mask = glare_mask(spots(32, 48)[None])
    pooled = pooled_to(mask, (8, 12))
    assert torch.equal(pooled, torch.nn.MaxPool2d(3, 2, 1)(torch.nn.MaxPool2d(3, 2, 1)(mask)))
    moved = torch.nn.functional.pad(mask, (8, 0, 4, 0))
    assert torch.equal(pooled_to(moved, (9, 14))[..., 1:, 2:], pooled)
    assert torch.equal(pooled_to(mask, (32, 48)), mask)
    assert pooled_to(mask, (16, 24)).shape[2:] == (16, 24)
    assert pooled_to(glare_mask(spots(37, 51)[None]), (9, 12)).shape[2:] == (9, 12)


def test_the_loss_of_a_mask_by_hand() -> None:
    """s = 1/2 everywhere: log 2 on s itself, 0.7241 with a second sigmoid, which stays in 0.644 to 0.894."""
    domains = torch.tensor([0, 1])
    share = torch.full((2, 3, 5), 0.5)
    assert mask_loss(torch.zeros(2, 3, 5), domains).item() == pytest.approx(math.log(2))
    assert mask_loss(share, domains).item() == pytest.approx(0.7241, abs=1e-4)
    ends = torch.tensor([0.5, 1.0]).view(2, 1, 1)
    assert mask_loss(ends, domains).item() == pytest.approx(0.644, abs=1e-3)
    assert mask_loss(ends.flip(0), domains).item() == pytest.approx(0.894, abs=1e-3)


@pytest.mark.parametrize("domains", [[0, 1, 1], [1, 0, 0], [0, 0, 0], [1], []])
def test_the_loss_of_a_mask_is_that_of_the_slow_twin(domains: list[int]) -> None:
    logits = torch.randn(len(domains), 3, 4, dtype=torch.float64, requires_grad=True)
    which = torch.tensor(domains, dtype=torch.int64)
    loss = mask_loss(logits, which)
    share = torch.sigmoid(logits)
    terms = [-(1 - share[which == 0]).log(), -share[which == 1].log()]
    expected = sum((0.5 * term.mean() for term in terms if term.numel()), logits.sum() * 0)
    torch.testing.assert_close(loss, expected)
    for got, wanted in zip(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits)):
        torch.testing.assert_close(got, wanted)
    assert torch.isfinite(mask_loss(logits * 1e4, which))


# ------------------------------------------------------------------ structure


def slow_enhancement(x: Tensor) -> Tensor:
    """Neighbour by neighbour."""
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    height, width = x.shape[2:]
    total = torch.zeros_like(x)
    for a in range(5):
        for b in range(5):
            if (a, b) != (2, 2):
                total = total + padded[:, :, a : a + height, b : b + width]
    return 0.9 * x + 0.25 * torch.relu(total / 24 - x)


def test_structure_by_hand() -> None:
    """A dark pixel in a bright surrounding gains a quarter; a bright pixel lifts its dark neighbours by 0.25 / 24."""
    ones, zeros = torch.ones(1, 1, 9, 9), torch.zeros(1, 1, 9, 9)
    ones[..., 4, 4], zeros[..., 4, 4] = 0, 1
    bright, dark = enhance_structure(ones)[0, 0], enhance_structure(zeros)[0, 0]
    assert bright[4, 4].item() == pytest.approx(0.25) and bright[4, 5].item() == pytest.approx(0.9)
    assert dark[4, 4].item() == pytest.approx(0.9) and dark[3, 5].item() == pytest.approx(0.0104167, abs=1e-6)
    assert dark[4, 7] == 0


@pytest.mark.parametrize("shape", [(2, 3, 7, 4), (1, 1, 1, 1), (1, 2, 1, 9), (0, 2, 5, 5)])
def test_structure_is_that_of_the_slow_twin(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    got, expected = enhance_structure(x), slow_enhancement(x)
    torch.testing.assert_close(got, expected)
    weight = torch.randn(shape, dtype=torch.float64)
    (a,), (b,) = (torch.autograd.grad((y * weight).sum(), x) for y in (got, expected))
    torch.testing.assert_close(a, b)
    assert torch.autograd.gradcheck(enhance_structure, (x,))


# ------------------------------------------------------------------ attention


def slow_attention(maps: Tensor, projection: Tensor, classifier: Tensor) -> Tensor:
    """The map of all classes, then the channel with the largest mean."""
    logits = torch.einsum("cd,dk,bkhw->bchw", classifier, projection, maps)
    chosen = logits.mean(dim=(2, 3)).argmax(dim=1)
    return torch.stack([torch.sigmoid(torch.relu(one[c])) for one, c in zip(logits, chosen)])


@pytest.mark.parametrize(("batch", "classes", "size"), [(3, 4, (2, 5)), (1, 1, (1, 1)), (5, 7, (3, 3))])
def test_attention_is_that_of_the_map_of_all_classes(batch: int, classes: int, size: tuple[int, int]) -> None:
    given = [
        torch.randn(s, dtype=torch.float64, requires_grad=True)
        for s in ((batch, 6, *size), (8, 6), (classes, 8))
    ]
    got, expected = class_attention(*given), slow_attention(*given)
    assert got.shape == (batch, *size)
    torch.testing.assert_close(got, expected)
    weight = torch.randn_like(got)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), given) for y in (got, expected)), strict=True):
        torch.testing.assert_close(a, b)
        assert bool(torch.isfinite(a).all())
    assert torch.autograd.gradcheck(class_attention, given)


def test_attention_without_a_class_is_one_half() -> None:
    assert torch.equal(
        class_attention(torch.randn(2, 3, 4, 5), torch.randn(6, 3), torch.empty(0, 0)),
        torch.full((2, 4, 5), 0.5),
    )


def slow_partners(labels: Tensor, domains: Tensor, attention: Tensor) -> Tensor:
    rows = []
    for label, domain in zip(labels.tolist(), domains.tolist()):
        own = [
            a
            for a, y, d in zip(attention, labels.tolist(), domains.tolist())
            if y == label >= 0 and d != domain
        ]
        rows.append(torch.stack(own).mean(dim=0) if own else torch.zeros_like(attention[0]))
    return torch.stack(rows)


@pytest.mark.parametrize(
    ("labels", "domains"),
    [
        ([0, 0, 1, 1, 0, 1], [0, 0, 0, 1, 1, 1]),
        ([0, 1, 0, -1, -1, 2], [1, 0, 0, 1, 0, 1]),
        ([0, 0, 0], [0, 0, 0]),
        ([4], [1]),
        ([3, 3, 3, 3, 5, 5], [0, 1, 1, 1, 0, 0]),
    ],
)
def test_partners_are_found_by_label_and_domain_wherever_they_stand(
    labels: list[int], domains: list[int]
) -> None:
    y, d = torch.tensor(labels), torch.tensor(domains)
    attention = torch.rand(len(labels), 2, 3, dtype=torch.float64, requires_grad=True)
    got, expected = partner_attention(y, d, y, d, attention), slow_partners(y, d, attention)
    torch.testing.assert_close(got, expected)
    weight = torch.randn_like(got)
    (a,) = torch.autograd.grad((got * weight).sum(), attention)
    if expected.requires_grad:
        (b,) = torch.autograd.grad((expected * weight).sum(), attention, allow_unused=True)
        torch.testing.assert_close(a, b)
    # Another order, and the other domain called day.
    order = torch.randperm(len(labels))
    torch.testing.assert_close(partner_attention(y[order], d[order], y, d, attention), expected[order])
    torch.testing.assert_close(partner_attention(y, 1 - d, y, 1 - d, attention), expected)


def test_nobody_has_partners_in_an_empty_batch() -> None:
    none, rows = torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2, 3)
    assert partner_attention(none, none, none, none, rows).shape == (0, 2, 3)
    one = torch.zeros(1, dtype=torch.int64)
    assert torch.equal(partner_attention(one, one, none, none, rows), torch.zeros(1, 2, 3))
