"""Domain confusion against plain modules and loops: the classifier, its loss, its optimizer."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dnreid_plugins.functional.losses.confusion import (
    HalvingClassifier,
    cross_entropy_by_class,
    nesterov_step,
    view_classes,
)


def twin(shape: HalvingClassifier, parameters: Tensor) -> nn.Sequential:
    """The same classifier of PyTorch's layers: convolutions of width 3 on maps of width 1, as released."""
    widths, layers = shape.widths(), []
    for inputs, outputs in pairwise(widths[:-1]):
        layers += [nn.Conv1d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm1d(outputs), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(widths[-2], widths[-1])).to(parameters)
    found = list(parameters.split([math.prod(s) for s in shape.shapes()]))
    with torch.no_grad():
        for layer in model:
            if isinstance(layer, nn.Conv1d):
                layer.weight[..., 1] = found.pop(0).view(
                    layer.weight.shape[:2]
                )  # the taps beside it see padding
            elif isinstance(layer, (nn.BatchNorm1d, nn.Linear)):
                layer.weight.copy_(found.pop(0).view_as(layer.weight))
                layer.bias.copy_(found.pop(0))
    assert not found
    return model


def drawn(shape: HalvingClassifier, images: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    parameters = shape.start(generator).double()
    parameters += 0.1 * torch.randn(len(parameters), generator=generator, dtype=torch.float64)
    return torch.randn(images, shape.inputs, generator=generator, dtype=torch.float64), parameters


def test_the_widths_halve_down_to_eight() -> None:
    assert HalvingClassifier(2048, 1024).widths() == [2048, 1024, 512, 256, 128, 64, 32, 16, 8, 3]
    assert HalvingClassifier(5, 12, classes=2).widths() == [5, 12, 2]
    assert HalvingClassifier(5, 8).widths() == [5, 8, 3]


@pytest.mark.parametrize(("images", "inputs", "hidden"), [(2, 1, 8), (7, 5, 20), (24, 16, 64)])
def test_it_is_the_released_stack(images: int, inputs: int, hidden: int) -> None:
    """Values, and gradients to features and weights."""
    shape = HalvingClassifier(inputs, hidden)
    features, parameters = drawn(shape, images)
    features, parameters = features.requires_grad_(), parameters.requires_grad_()
    plain = features.detach().clone().requires_grad_()
    model = twin(shape, parameters.detach())
    logits, expected = shape.logits(features, parameters), model(plain[..., None])
    torch.testing.assert_close(logits, expected)
    factor = torch.rand_like(expected.detach())
    (logits * factor).sum().backward()
    (expected * factor).sum().backward()
    torch.testing.assert_close(features.grad, plain.grad)
    first = next(iter(model.parameters()))
    rows = inputs * shape.widths()[1]
    torch.testing.assert_close(parameters.grad[:rows].view(first.shape[:2]), first.grad[..., 1])
    torch.testing.assert_close(parameters.grad[-3:], model[-1].bias.grad)


@torch.no_grad()
def test_the_start_has_the_spread_of_pytorchs_layers() -> None:
    shape = HalvingClassifier(96, 64)
    model = twin(shape, shape.start(torch.Generator().manual_seed(0)))
    fresh = nn.Conv1d(96, 64, 3)
    assert model[0].weight[..., 1].abs().max() <= 1 / math.sqrt(3 * 96)
    assert model[0].weight[..., 1].std() == pytest.approx(float(fresh.weight.std()), rel=0.05)
    assert model[-1].weight.abs().max() <= 1 / math.sqrt(8) and float(model[-1].weight.std()) > 0.1
    assert bool((model[1].weight == 1).all()) and bool((model[1].bias == 0).all())
    again, other = (shape.start(torch.Generator().manual_seed(n)) for n in (0, 1))
    assert torch.equal(again, shape.start(torch.Generator().manual_seed(0))) and not torch.equal(again, other)


def test_gradients_of_classifier_and_loss() -> None:
    shape = HalvingClassifier(3, 8)
    features, parameters = drawn(shape, 6)
    classes = torch.tensor([0, 1, 2, 0, 0, 1])

    def loss(features: Tensor, parameters: Tensor) -> Tensor:
        return cross_entropy_by_class(shape.logits(features, parameters), classes, 2)

    assert torch.autograd.gradcheck(loss, (features.requires_grad_(), parameters.requires_grad_()))


def naive(logits: Tensor, classes: Tensor, target: int | None) -> Tensor:
    """Class by class, image by image."""
    total = logits.sum() * 0.0
    for label in sorted(set(classes.tolist())):
        own = [
            -F.log_softmax(logits[i], dim=0)[label if target is None else target]
            for i in range(len(classes))
            if classes[i] == label
        ]
        total = total + sum(own) / len(own)
    return total


@pytest.mark.parametrize("target", [None, 0, 2])
@pytest.mark.parametrize("labels", [[], [1], [0, 1], [2, 2, 2], [0, 0, 0, 1, 2, 2, 0], [0, 2]])
def test_classes_count_equally(labels: list[int], target: int | None) -> None:
    classes = torch.tensor(labels, dtype=torch.int64)
    logits = torch.randn(len(labels), 3, dtype=torch.float64, requires_grad=True)
    loss, expected = (f(logits, classes, target) for f in (cross_entropy_by_class, naive))
    torch.testing.assert_close(loss, expected)
    got, wanted = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(got, wanted)


def test_zero_logits_give_three_times_the_logarithm_of_three() -> None:
    classes = torch.tensor([0, 0, 1, 2, 2, 2])
    for target in (None, 2):
        assert float(cross_entropy_by_class(torch.zeros(6, 3), classes, target)) == pytest.approx(
            3.29584, abs=1e-5
        )


def test_a_further_view_of_a_night_image_is_night() -> None:
    domains, views = torch.tensor([0, 0, 0, 1, 1]), torch.tensor([0, 1, 2, 0, 1])
    assert view_classes(domains, views).tolist() == [0, 2, 2, 1, 1]


@pytest.mark.parametrize(("momentum", "weight_decay"), [(0.9, 5e-4), (0.0, 0.0), (0.5, 0.1)])
def test_the_step_is_that_of_pytorch(momentum: float, weight_decay: float) -> None:
    parameters = torch.randn(5, dtype=torch.float64)
    plain = nn.Parameter(parameters.clone())
    options = {"lr": 0.01, "momentum": momentum, "weight_decay": weight_decay}
    optimizer = torch.optim.SGD([plain], nesterov=momentum > 0, **options)
    velocity = torch.zeros(5, dtype=torch.float64)
    for _ in range(4):
        gradient = torch.randn(5, dtype=torch.float64)
        parameters, velocity = nesterov_step(parameters, velocity, gradient, **options)
        plain.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(parameters, plain.data)


def test_half_precision_is_computed_in_full() -> None:
    shape = HalvingClassifier(16, 16)
    features, parameters = (tensor.float() for tensor in drawn(shape, 9))
    half = features.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = shape.logits(half, parameters)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, shape.logits(half.float(), parameters))
