"""Image-text losses against loops, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.image_text import (
    batch_text_alignment,
    instance_contrast,
    smoothed_cross_entropy,
)


def pair(seed: int, batch: int, dim: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    image = F.normalize(torch.randn(batch, dim, generator=generator, dtype=torch.float64), dim=1)
    text = 3 * torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    return image.requires_grad_(), text.requires_grad_()


def naive_one_way(anchors: Tensor, others: Tensor, ids: Tensor, temperature: float) -> Tensor:
    total = anchors.sum() * 0
    for i in range(len(ids)):
        exps = [torch.exp((anchors[i] * other).sum() / temperature) for other in others]
        copies = [q for q in range(len(ids)) if ids[q] == ids[i]]
        total = total - sum(torch.log(exps[q] / sum(exps)) for q in copies) / len(copies)
    return total / len(ids)


def naive_smoothed(logits: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    terms = []
    for line, target in zip(logits, targets.tolist(), strict=True):
        if target >= 0:
            log_p = [x - torch.log(sum(torch.exp(y) for y in line)) for x in line]
            share = [smoothing / len(line) + (1 - smoothing) * (c == target) for c in range(len(line))]
            terms.append(-sum(p * s for p, s in zip(log_p, share, strict=True)))
    return sum(terms, logits.sum() * 0) / max(len(terms), 1)


def naive_alignment(image: Tensor, text: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    classes = sorted(set(targets[targets >= 0].tolist()))
    means = [sum(text[i] for i in range(len(targets)) if targets[i] == c) for c in classes]
    means = [m / int((targets == c).sum()) for m, c in zip(means, classes, strict=True)]
    centroids = torch.stack([m / m.norm() for m in means])
    rows = [i for i in range(len(targets)) if targets[i] >= 0]
    logits = torch.stack([torch.stack([(image[i] * t).sum() for t in centroids]) for i in rows])
    return naive_smoothed(logits, torch.tensor([classes.index(int(targets[i])) for i in rows]), smoothing)


def assert_same_with_gradients(fast: Tensor, slow: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(torch.autograd.grad(fast, inputs, retain_graph=True),
                               torch.autograd.grad(slow, inputs))  # fmt: skip


@pytest.mark.parametrize("ids", [[5], [0, 1, 2, 3], [0, 1, 0, 2, 1, 0], [4, 4, 4]])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_instance_contrast_equals_the_loop(ids: list[int], temperature: float) -> None:
    image, text = pair(len(ids), len(ids))
    image_ids = torch.tensor(ids)
    i2t, t2i = instance_contrast(image, text, image_ids, temperature=temperature)
    assert_same_with_gradients(i2t, naive_one_way(image, text, image_ids, temperature), [image, text])
    assert_same_with_gradients(t2i, naive_one_way(text, image, image_ids, temperature), [image, text])


def test_instance_contrast_of_equal_texts_costs_log_of_the_batch() -> None:
    image, text = pair(0, 6)
    i2t, _ = instance_contrast(image, text[:1].expand(6, -1), torch.arange(6))
    assert i2t.item() == pytest.approx(math.log(6))


def test_instance_contrast_does_not_depend_on_the_names_of_the_images() -> None:
    image, text = pair(0, 5)
    ids = torch.tensor([0, 1, 0, 2, 3])
    torch.testing.assert_close(
        instance_contrast(image, text, ids), instance_contrast(image, text, 97 - 13 * ids)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("classes", [1, 3, 8])
@pytest.mark.parametrize("labelled", [0, 1, 7])
def test_smoothed_cross_entropy_equals_the_loop(classes: int, smoothing: float, labelled: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(7, classes, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(-1 if labelled == 7 else 0, classes, (7,), generator=generator)
    targets[labelled:] = -1
    fast = smoothed_cross_entropy(logits, targets, smoothing=smoothing)
    assert_same_with_gradients(fast, naive_smoothed(logits, targets, smoothing), [logits])


def test_smoothing_of_equal_logits_costs_log_of_the_classes() -> None:
    assert float(smoothed_cross_entropy(torch.zeros(3, 9), torch.tensor([0, 8, -1]))) == pytest.approx(
        math.log(9)
    )


@pytest.mark.parametrize("targets", [[0, 0, 1, 1], [7, -1, 3, 7, 3, 3, 0, -1], [2], [5, 4, 3]])
def test_batch_text_alignment_equals_the_loop(targets: list[int]) -> None:
    image, text = pair(len(targets), len(targets))
    labels = torch.tensor(targets)
    fast = batch_text_alignment(image, text, labels)
    assert_same_with_gradients(fast, naive_alignment(image, text, labels, 0.1), [image, text])


def test_relabelling_the_clusters_changes_nothing() -> None:
    image, text = pair(0, 6)
    targets, names = torch.tensor([0, 1, 2, 0, -1, 2]), torch.tensor([11, 3, 7])
    renamed = torch.where(targets >= 0, names[targets.clamp(min=0)], -1)
    torch.testing.assert_close(
        batch_text_alignment(image, text, targets), batch_text_alignment(image, text, renamed)
    )


def test_detached_texts_get_no_gradient() -> None:
    image, text = pair(0, 4)
    batch_text_alignment(image, text.detach(), torch.tensor([0, 0, 1, 1])).backward()
    assert text.grad is None and image.grad is not None and image.grad.any()


@pytest.mark.parametrize("case", ["empty batch", "outliers", "one cluster", "no class"])
def test_nothing_to_tell_apart_gives_zero_with_a_graph(case: str) -> None:
    image, text = pair(0, 0 if case == "empty batch" else 3)
    if case == "empty batch":
        losses = list(instance_contrast(image, text, torch.zeros(0, dtype=torch.int64)))
        losses.append(batch_text_alignment(image, text, torch.zeros(0, dtype=torch.int64)))
    elif case == "no class":
        losses = [smoothed_cross_entropy(image[:, :0], torch.full((3,), -1))]
    else:
        losses = [batch_text_alignment(image, text, torch.full((3,), -1 if case == "outliers" else 4))]
    for loss in losses:
        assert loss.item() == pytest.approx(0.0, abs=1e-12) and loss.requires_grad
        (gradient,) = torch.autograd.grad(loss, [image], retain_graph=True)
        torch.testing.assert_close(gradient, torch.zeros_like(image))


def test_half_precision_is_computed_in_float32() -> None:
    image, text = (x.detach().half().requires_grad_() for x in pair(0, 6, 64))
    ids, targets = torch.arange(6), torch.tensor([0, 0, 1, 1, 2, 2])
    for loss in (*instance_contrast(image, text, ids), batch_text_alignment(image, text, targets)):
        assert loss.dtype == torch.float32 and bool(torch.isfinite(loss))
        (gradient,) = torch.autograd.grad(loss, [image], retain_graph=True)
        assert gradient.dtype == torch.float16 and bool(torch.isfinite(gradient).all())


def test_refusals_name_the_value() -> None:
    image, text = pair(0, 2)
    for wrong in (0, -1):
        with pytest.raises(ValueError, match=f"temperature must be > 0, got {wrong}"):
            instance_contrast(image, text, torch.arange(2), temperature=wrong)
    for wrong in (2, -0.5):
        with pytest.raises(ValueError, match=rf"smoothing must lie in \[0, 1\], got {wrong}"):
            batch_text_alignment(image, text, torch.arange(2), smoothing=wrong)
