"""Domain confusion: a classifier tells the domains apart, the encoder makes it answer one class for all images."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.losses.contrast import zero_with_graph
from dnreid_plugins.functional.precision import in_full_precision
from dnreid_plugins.functional.types import Domain

#: Class of the further views of a day image; those of the plain views are the numbers of the domains.
SECOND_DAY_VIEW = 2
SMALLEST_LAYER = 8


@dataclass(frozen=True)
class HalvingClassifier:
    """A perceptron whose layers halve, ``inputs -> hidden -> hidden / 2 -> ... -> 8 -> classes``.

    Batch norm and ReLU follow every layer but the last. Batch norm always uses the batch's own statistics and keeps
    no running ones, since the classifier is only asked about the batch at hand. All parameters are one vector.
    """

    inputs: int
    hidden: int
    classes: int = 3

    def widths(self) -> list[int]:
        """Of the input, of every layer and of the output."""
        halves = itertools.takewhile(
            lambda h: h >= SMALLEST_LAYER, (self.hidden >> n for n in itertools.count())
        )
        return [self.inputs, *halves, self.classes]

    def shapes(self) -> list[tuple[int, ...]]:
        """Weight, scale and shift of each hidden layer (a bias before batch norm has no effect), weight and bias."""
        *hidden, last = [(out, width) for width, out in itertools.pairwise(self.widths())]
        found: list[tuple[int, ...]] = []
        for out, width in hidden:
            found += [(out, width), (out,), (out,)]
        return [*found, last, last[:1]]

    def start(self, generator: torch.Generator) -> Tensor:
        """``(P,)`` float32 random parameters on the CPU."""
        *hidden, weight, bias = self.shapes()
        found = []
        for matrix, scale, shift in zip(hidden[::3], hidden[1::3], hidden[2::3]):
            # The released layers are convolutions of width 3 on maps of width 1. Behind batch norm the size of the
            # weights is free, but a step of SGD turns smaller ones further.
            found += [_uniform(matrix, 3 * matrix[1], generator), torch.ones(scale), torch.zeros(shift)]
        found += [_uniform(weight, weight[1], generator), _uniform(bias, weight[1], generator)]
        return torch.cat([tensor.flatten() for tensor in found])

    @in_full_precision
    def logits(self, features: Tensor, parameters: Tensor) -> Tensor:
        """``(B, classes)`` from ``features`` ``(B, inputs)``, ``B >= 2``, and ``parameters`` ``(P,)``."""
        shapes = self.shapes()
        pieces = parameters.split([torch.Size(shape).numel() for shape in shapes])
        *hidden, weight, bias = (piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True))
        for matrix, scale, shift in zip(hidden[::3], hidden[1::3], hidden[2::3]):
            features = F.relu(F.batch_norm(features @ matrix.T, None, None, scale, shift, training=True))
        return features @ weight.T + bias


def view_classes(domains: Tensor, views: Tensor) -> Tensor:
    """``(B,)`` int64: 0 day, 1 night, 2 a further view of a day image."""
    return torch.where((domains == Domain.DAY) & (views > 0), SECOND_DAY_VIEW, domains)


@in_full_precision
def cross_entropy_by_class(logits: Tensor, classes: Tensor, target: int | None = None) -> Tensor:
    """Sum over the classes that occur of the mean cross entropy of their images.

    Args:
        logits: ``(B, K)``.
        classes: ``(B,)`` int64 class of each image, in ``0 .. K-1``.
        target: the class that all images are to have, for the encoder; None: each its own, for the classifier.

    Returns:
        Scalar; zero with a graph for an empty batch.
    """
    if len(classes) == 0:
        return zero_with_graph(logits)
    each = F.cross_entropy(
        logits, classes if target is None else torch.full_like(classes, target), reduction="none"
    )
    counts = F.one_hot(classes, logits.shape[1]).sum(dim=0)
    return (each / counts[classes]).sum()


def nesterov_step(
    parameters: Tensor, velocity: Tensor, gradient: Tensor, *, lr: float, momentum: float, weight_decay: float
) -> tuple[Tensor, Tensor]:
    """New parameters and velocity after a step of SGD with Nesterov momentum; the velocity starts at 0."""
    gradient = gradient + weight_decay * parameters
    velocity = momentum * velocity + gradient
    return parameters - lr * (gradient + momentum * velocity), velocity


def _uniform(shape: tuple[int, ...], fan_in: int, generator: torch.Generator) -> Tensor:
    return (2 * torch.rand(shape, generator=generator) - 1) / fan_in**0.5
