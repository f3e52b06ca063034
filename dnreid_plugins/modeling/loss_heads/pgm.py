"""Progressive graph matching with alternating cross contrast (PGM)."""

from __future__ import annotations

from ...runtime.sections import Positive
from ..matchers.progressive import ProgressiveMatcher
from .base import LOSS_HEAD_REGISTRY, Schedule
from .cross_contrast import CrossContrast


@LOSS_HEAD_REGISTRY.register()
class PGM(CrossContrast):
    """Contrast with the matched cluster of the other domain, each pair with weight 1.

    Args:
        weight: PGM's code uses 0.25.
        matcher: Which clusters are matched.
        temperature: Of the contrast.
        alternate: Odd epochs contrast night images with day rows, even epochs the reverse; False: both always.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((51, 0.25),),
        matcher: ProgressiveMatcher,
        temperature: Positive = 0.05,
        alternate: bool = True,
    ) -> None:
        super().__init__(
            weight=weight,
            matcher=matcher,
            temperature=temperature,
            directions="alternate" if alternate else "both",
        )
