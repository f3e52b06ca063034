"""Dictionary-guided graph matching: contrast with the matched cluster of the other domain (CIA Eq. 4-9)."""

from __future__ import annotations

from ...runtime.sections import Positive
from ..matchers.dictionary import DictionaryMatcher
from .base import LOSS_HEAD_REGISTRY, Schedule
from .cross_contrast import CrossContrast


@LOSS_HEAD_REGISTRY.register()
class DGM(CrossContrast):
    """Matches once per epoch on the epoch-start centroids (U7), then adds ``L_d2n + L_n2d``.

    Args:
        weight: 0.3 from epoch 51 on in the paper.
        matcher: The dictionary.
        temperature: Of Eq. 8; not given in the paper (U3).
        match_always: Match in stage 1 too; not given in the paper (U22). There is no loss then, but the matching is
            available to its users: class factor of MAA, groups of MarginMMD and, with DATALOADER.PAIRED, the sampler.
        update_other: Let matched features update the other domain's rows as PGM's code does; not given in the paper
            (U6).
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((51, 0.3),),
        matcher: DictionaryMatcher,
        temperature: Positive = 0.05,
        match_always: bool = False,
        update_other: bool = False,
    ) -> None:
        super().__init__(
            weight=weight,
            matcher=matcher,
            temperature=temperature,
            scores=True,
            update_other=update_other,
            match_always=match_always,
        )
