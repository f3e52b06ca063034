"""What every loss head is: a weight over the epochs, something rebuilt per epoch, a scalar per batch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fastreid.utils.registry import Registry
from torch import Tensor, nn

from ...functional.types import Assignment, EpochClusters
from ..batch import BatchFeatures
from ..memory import PrototypeMemory

LOSS_HEAD_REGISTRY = Registry("LOSS_HEAD")
LOSS_HEAD_REGISTRY.__doc__ = "Loss heads by the name that stands in ``MODEL.LOSSES.NAME``."


class LossHead(nn.Module):
    """Base of all loss heads; a head holds state and calls a pure function of `functional`.

    Args:
        weight: ``((first_epoch, value), ...)``, epochs counted from 1, in rising order.
    """

    # The matching across domains that this head made for the running epoch, if it makes one.
    assignment: Assignment | None = None
    # The matching that any head made for the running epoch; the label phase sets it.
    matching: Assignment | None = None
    # False: the head only changes the memory or the matching and is left out of the loss.
    has_loss = True
    # True: `begin_epoch` runs also while the weight is 0, because other heads use the matching.
    begins_always = False
    # True: `begin_epoch` sets the parameters anew, sized to the clusters. The optimizer forgets what it knew of them,
    # a checkpoint's sizes are taken over, and every process computes the same gradient for them.
    follows_clusters = False

    def __init__(self, *, weight: Sequence[Sequence[float]] = ((1, 1.0),)) -> None:
        super().__init__()
        self.schedule = parse_weight(weight)
        # Figures of the last batch for the log.
        self.statistics: dict[str, Tensor | float] = {}

    @classmethod
    def from_config(cls, cfg: Any) -> LossHead:
        """Build from ``MODEL.LOSSES.<NAME>``: every key of the section is the argument of the same name."""
        section = cfg.MODEL.LOSSES[cls.__name__.upper()]
        return cls(**{key.lower(): value for key, value in section.items()})

    def connect(self, heads: Mapping[str, LossHead]) -> None:
        """Called once with all heads of the model, for a head that works with another one."""

    def weight_at(self, epoch: int) -> float:
        """Weight in ``epoch`` (from 1); 0 before the first border."""
        return next((value for first, value in reversed(self.schedule) if epoch >= first), 0.0)

    def begin_epoch(self, clusters: EpochClusters, memory: PrototypeMemory) -> dict[str, float]:
        """Rebuild what depends on the clusters; returns figures for the health line."""
        return {}

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        """A scalar that carries gradient to the encoder."""
        raise NotImplementedError

    def after_step(self, batch: BatchFeatures, memory: PrototypeMemory) -> None:
        """Changes to the memory beyond its own update; ``batch`` is the whole batch of all processes, detached."""

    def carry_over(self) -> dict[str, Any]:
        """What one epoch hands to the next beyond the parameters, for an exact resume."""
        return {}

    def load_carry_over(self, state: dict[str, Any]) -> None:
        """Counterpart of `carry_over`."""


def names_sized_by_clusters(model: nn.Module) -> set[str]:
    """Names in ``model.state_dict()`` of what belongs to a module that ``follows_clusters``."""
    return {
        f"{name}.{key}"
        for name, module in model.named_modules()
        if getattr(module, "follows_clusters", False)
        for key in module.state_dict()
    }


def parse_weight(weight: Sequence[Sequence[float]]) -> list[tuple[int, float]]:
    """``((first_epoch, value), ...)`` as a checked list.

    Raises:
        ValueError: empty, not pairs, epochs not whole, below 1 or not rising, or a weight below 0.
    """
    try:
        schedule = [(int(first), float(value)) for first, value in weight]
        whole = all(float(first) == int(first) for first, _ in weight)
    except (TypeError, ValueError):
        schedule, whole = [], False
    rising = all(a[0] < b[0] for a, b in itertools.pairwise(schedule))
    if not schedule or not whole or not rising or schedule[0][0] < 1 or min(v for _, v in schedule) < 0:
        raise ValueError(
            f"A loss weight is {weight!r}; write ((first_epoch, value), ...) with rising whole epochs from 1 "
            "and values >= 0, e.g. ((1, 0.5), (51, 0.3))."
        )
    return schedule
