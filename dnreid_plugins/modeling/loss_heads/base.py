"""Base of the loss heads: a weight over the epochs and a scalar per batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from ...functional.types import Domain, StreamName
from ..batch import BatchFeatures
from ..matchers.base import Matcher
from ..parts import Part, PartRegistry, Parts

LOSS_HEAD_REGISTRY = PartRegistry("LOSS_HEAD", "MODEL.LOSSES")
LOSS_HEAD_REGISTRY.__doc__ = "Loss heads by their name in ``MODEL.LOSSES.NAME``."

#: ``((first_epoch, value), ...)``: piecewise constant in the epoch, epochs counted from 1, in ascending order.
Schedule = Sequence[Sequence[float]]


class LossHead(Part):
    """Base of all loss heads; a head holds state and calls a pure function of `functional`.

    Args:
        weight: ``((first_epoch, value), ...)``, see `Schedule`; 0 before the first epoch given.
        matcher: makes the matching across domains that the head uses, if it needs one.
        match_always: match also in epochs in which the weight is 0, for other parts that use a matching.
    """

    #: False: the head only changes the memory or the matching and is left out of the loss.
    has_loss: ClassVar[bool] = True
    #: True: `begin_epoch` and `after_step` are called in every epoch; the weight decides about the loss only.
    always_active: ClassVar[bool] = False
    #: It reads what the teacher makes of the batch: ``batch.extra["teacher"]``.
    asks_teacher: ClassVar[bool] = False
    section: ClassVar[str] = "MODEL.LOSSES"
    #: Of which batches it is a loss; see `StreamName`.
    stream: StreamName = "domains"

    def __init__(
        self, *, weight: Schedule = ((1, 1.0),), matcher: Matcher | None = None, match_always: bool = False
    ) -> None:
        super().__init__()
        self.schedule = parse_weight(weight, f"{self.section}.WEIGHT")
        self.matcher = matcher
        self.match_always = match_always
        # Statistics of the last batch for the log.
        self.statistics: dict[str, Tensor | float] = {}

    @property
    def name(self) -> str:
        """Its name in ``MODEL.LOSSES.NAME``, and that of its matching in the epoch."""
        return type(self).__name__

    @property
    def first_epoch(self) -> int:
        """The first epoch with a weight above 0; 1 if there is none."""
        return next((epoch for epoch, weight in self.schedule if weight > 0), 1)

    def weight_at(self, epoch: int) -> float:
        """Weight in ``epoch`` (from 1); 0 before the first epoch given."""
        return step_value(self.schedule, epoch)

    def matches_in(self, epoch: int) -> bool:
        """Whether the head's matcher runs in ``epoch``."""
        return self.match_always or self.weight_at(epoch) > 0

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        """A scalar that carries gradient to the encoder."""
        raise NotImplementedError


def build_loss_heads(cfg: Any) -> dict[str, LossHead]:
    """The loss heads of ``MODEL.LOSSES.NAME`` by name, in that order.

    Raises:
        ValueError: no name, an unknown name, a repeated one, or a head without the one that it needs.
    """
    names = tuple(cfg.MODEL.LOSSES.NAME)
    known = LOSS_HEAD_REGISTRY.names()
    for name in names:
        if name not in known:
            raise ValueError(
                f"MODEL.LOSSES.NAME holds {name!r}, which {cfg.MODEL.META_ARCHITECTURE} does not know; "
                f"known loss heads: {known}."
            )
    if not names or len(set(names)) != len(names):
        raise ValueError(f"MODEL.LOSSES.NAME is {names!r}; name at least one loss head, each of them once.")
    return {name: LOSS_HEAD_REGISTRY.get(name).from_config(cfg) for name in names}


def joint_targets(batch: BatchFeatures, parts: Parts) -> Tensor:
    """``(B,)`` int64 labels that mean the same in both domains; -1 = none. See `Parts.joint_targets`."""
    return parts.joint_targets(batch.targets, batch.domains, batch.indices)


def step_value(schedule: list[tuple[int, float]], epoch: int) -> float:
    """Value of a schedule that `parse_weight` has checked in ``epoch`` (from 1); 0 before the first epoch given."""
    return next((value for first, value in reversed(schedule) if epoch >= first), 0.0)


def contrasted_domains(number: int, *, alternate: bool) -> tuple[Domain, ...]:
    """Domains whose images are contrasted with the other one's rows in epoch ``number``.

    ``alternate``: night in odd epochs, day in even ones; else both.
    """
    return ((Domain.NIGHT if number % 2 == 1 else Domain.DAY),) if alternate else tuple(Domain)


def check_hard_bank(cfg: Any, name: str) -> None:
    """Refuse a memory without the bank "hard" that the loss ``name`` contrasts with.

    Raises:
        ValueError: there is none.
    """
    banks = tuple(cfg.MODEL.MEMORY.EXTRA_BANKS)
    if ("hard", "hardest_of_own") not in [tuple(bank) for bank in banks]:
        raise ValueError(
            f"{name} contrasts with a bank called 'hard', but MODEL.MEMORY.EXTRA_BANKS is {banks!r}; add "
            "('hard', 'hardest_of_own') to it."
        )


def parse_weight(weight: Schedule, key: str = "WEIGHT") -> list[tuple[int, float]]:
    """``((first_epoch, value), ...)`` as a checked list.

    Raises:
        ValueError: empty, not pairs, epochs not whole, below 1 or not ascending, or a weight below 0 or not finite.
    """
    try:
        schedule = [(int(first), float(value)) for first, value in weight]
        whole = all(float(first) == int(first) for first, _ in weight)
    except (TypeError, ValueError, OverflowError):
        schedule, whole = [], False
    rising = all(a[0] < b[0] for a, b in itertools.pairwise(schedule))
    fits = all(0 <= value < float("inf") for _, value in schedule)
    if not schedule or not whole or not rising or schedule[0][0] < 1 or not fits:
        raise ValueError(
            f"{key} is {weight!r}; write ((first_epoch, value), ...) with ascending whole epochs from 1 "
            "and values >= 0, e.g. ((1, 0.5), (51, 0.3))."
        )
    return schedule
