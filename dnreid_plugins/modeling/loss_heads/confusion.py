"""Adversarial confusion of the domains (PCA): a classifier with its own optimizer, and the encoder against it."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from torch import Tensor

from ...functional.losses.confusion import (
    SECOND_DAY_VIEW,
    SMALLEST_LAYER,
    HalvingClassifier,
    cross_entropy_by_class,
    nesterov_step,
    view_classes,
)
from ...functional.losses.contrast import zero_with_graph
from ...functional.types import Domain, Epoch
from ...runtime.sections import NotNegative, Range, Share, construct
from ..batch import BatchFeatures
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule, parse_weight, step_value


@LOSS_HEAD_REGISTRY.register()
class DomainConfusion(LossHead):
    """A classifier learns whether an image is day, night or a further view of a day image; the encoder confuses it.

    The classifier trains after every step, from the first epoch on and whatever the weight, on the detached features
    of the whole batch. While the weight is above 0 the encoder adds the cross entropy of all images towards one
    class: the further day view, or day where the batch has no further view. Classes count equally, absent ones
    not at all; a batch with images of one class gives zero and trains no classifier.

    Args:
        weight: Of the encoder's loss, piecewise constant over the epochs; the released stages have 1 from epoch 26
            and 0.1 from epoch 51 on.
        hidden: Width of the classifier's first layer; each further one halves it, down to 8.
        lr: Learning rate of the classifier's own SGD, as (first epoch, value) pairs; 0 stops its training.
        momentum: Of this SGD (Nesterov).
        weight_decay: Of this SGD.

    Attributes:
        classifier, velocity: ``(P,)`` parameters of the classifier and state of its SGD; empty before the first
            epoch. No parameters of the model, so that its optimizer does not know them.
    """

    always_active = True
    classifier: Tensor
    velocity: Tensor

    def __init__(
        self,
        *,
        seed: int,
        weight: Schedule = ((26, 1.0), (51, 0.1)),
        hidden: Annotated[int, Range(SMALLEST_LAYER)] = 1024,
        lr: Schedule = ((1, 0.01),),
        momentum: Share = 0.9,
        weight_decay: NotNegative = 5e-4,
    ) -> None:
        super().__init__(weight=weight)
        self.seed, self.hidden = seed, hidden
        self.lr = parse_weight(lr, f"{self.section}.LR")
        self.momentum, self.weight_decay = momentum, weight_decay
        self.register_buffer("classifier", torch.empty(0))
        self.register_buffer("velocity", torch.empty(0))

    @classmethod
    def from_config(cls, cfg: Any) -> DomainConfusion:
        head: DomainConfusion = construct(cls, cfg, seed=cfg.SEED)
        return head

    def begin_epoch(self, epoch: Epoch, parts: Parts) -> dict[str, float]:
        if len(self.classifier) == 0:
            start = self._shape(epoch.day.features).start(torch.Generator().manual_seed(abs(self.seed)))
            self.classifier = start.to(self.classifier)
            self.velocity = torch.zeros_like(self.classifier)
        return {}

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        """Sum over the classes of the mean cross entropy towards the class that all are to have."""
        classes = view_classes(batch.domains, batch.views)
        if len(classes.unique()) < 2:
            return zero_with_graph(batch.features)
        logits = self._shape(batch.features).logits(batch.features, self.classifier)
        self.statistics = {"accuracy": (logits.detach().argmax(dim=1) == classes).float().mean()}
        target = SECOND_DAY_VIEW if bool((classes == SECOND_DAY_VIEW).any()) else int(Domain.DAY)
        return cross_entropy_by_class(logits, classes, target)

    def after_step(self, batch: BatchFeatures, parts: Parts) -> None:
        """Train the classifier; every process has the same batch and so the same classifier."""
        classes = view_classes(batch.domains, batch.views)
        lr = step_value(self.lr, parts.epoch.number if parts.epoch is not None else 1)
        if len(classes.unique()) < 2 or lr == 0:
            return
        with torch.enable_grad():
            parameters = self.classifier.detach().requires_grad_()
            loss = cross_entropy_by_class(
                self._shape(batch.features).logits(batch.features, parameters), classes
            )
            (gradient,) = torch.autograd.grad(loss, parameters)
        options = {"lr": lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        self.classifier, self.velocity = nesterov_step(self.classifier, self.velocity, gradient, **options)

    def _shape(self, features: Tensor) -> HalvingClassifier:
        return HalvingClassifier(features.shape[1], self.hidden)
