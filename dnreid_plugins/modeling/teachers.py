"""A teacher: the exponential moving average of the encoder, its statistics included."""

from __future__ import annotations

import copy
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from ..runtime.sections import Range, configured, construct
from .batch import BatchFeatures
from .parts import Part, Parts


@configured("MODEL.TEACHER")
class TeacherOptions:
    """Whether a run has a teacher.

    Args:
        enabled: Average the encoder after every optimizer step.
        decay: Share of the old average that is kept in a step.
        evaluate: The teacher is evaluated and used by a predictor; pseudo labels come from the trained encoder either
            way.
    """

    def __init__(
        self, *, enabled: bool = False, decay: Annotated[float, Range(0, 1)] = 0.999, evaluate: bool = True
    ) -> None:
        self.enabled, self.decay, self.evaluate = enabled, decay, evaluate


class Teacher(Part):
    """Average of an encoder's parameters and floating-point buffers; integer buffers are copied.

    Until its first step it is a copy of the student, and answers as the student does.

    Args:
        student: the modules of the encoder by name, such as backbone and heads.
        decay: share of the old average that is kept in a step, in [0, 1].
        evaluate: the model uses the teacher in eval mode.
    """

    def __init__(self, student: dict[str, nn.Module], *, decay: float, evaluate: bool) -> None:
        super().__init__()
        self.decay, self.evaluate = decay, evaluate
        self.encoder = nn.ModuleDict({name: copy.deepcopy(module) for name, module in student.items()})
        self.encoder.requires_grad_(False)
        # In a tuple, so that the student is not a sub-module.
        self._student = (student,)

    @torch.no_grad()
    def after_step(self, batch: BatchFeatures, parts: Parts) -> None:
        if batch.stream != parts.streams_now[-1]:
            return  # once per iteration
        for own, other in self._pairs():
            if own.is_floating_point():
                own.mul_(self.decay).add_(other.detach(), alpha=1.0 - self.decay)
            else:
                own.copy_(other)

    @torch.no_grad()
    def forget(self) -> None:
        """Start as a copy of the student."""
        for own, other in self._pairs():
            own.copy_(other)

    def train(self, mode: bool = True) -> Teacher:
        """A teacher is always in eval mode: it uses its own running statistics."""
        return super().train(False)

    def _pairs(self) -> list[tuple[Tensor, Tensor]]:
        pairs = []
        for name, module in self._student[0].items():
            other = module.state_dict(keep_vars=True)
            pairs += [
                (value, other[key]) for key, value in self.encoder[name].state_dict(keep_vars=True).items()
            ]
        return pairs


def build_teacher(cfg: Any, student: dict[str, nn.Module]) -> Teacher | None:
    """The teacher of ``MODEL.TEACHER``; None if it is disabled."""
    options = construct(TeacherOptions, cfg)
    if not options.enabled:
        return None
    return Teacher(student, decay=options.decay, evaluate=options.evaluate)
