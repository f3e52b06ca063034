"""Says when training makes the pseudo labels worse than the start's, by figures that need no identities."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ..functional.types import Domain
from ..runtime.sections import Count, configured

logger = logging.getLogger(__name__)

#: Worse means below this share of epoch 1's value: in sound runs the clustered images fall to 94 % at the lowest.
WORSE = 0.9

Figures = Mapping[str, float]


class WorseLabelsError(ValueError):
    """The labels have become worse, and ``GUARD.MODE`` is "stop"."""


@configured("GUARD")
class Guard:
    """Compares the labels of each epoch with those of epoch 1, which are the start's (docs/choosing-the-radius.md).

    Args:
        mode: What happens once the labels have become worse: "warn" says it once, "stop" ends the run, "off" does
            nothing.
        epochs: So many epochs in a row must be worse than epoch 1.
    """

    def __init__(self, *, mode: Literal["warn", "stop", "off"] = "warn", epochs: Count = 3) -> None:
        self.mode, self.epochs = mode, epochs

    def look(self, history: Mapping[int, Figures], *, eps: Any) -> None:
        """Judge the newest epoch; a function of ``history`` alone, so that a resumed run says the same.

        Args:
            history: figures of the health line by epoch, from 1.
            eps: CLUSTER.EPS, for the sentence.

        Raises:
            WorseLabelsError: the labels have become worse and the mode is "stop".
        """
        if self.mode == "off" or 1 not in history or self._first_alarm(history) != max(history):
            return
        text = self._sentence(history, eps)
        if self.mode == "stop":
            raise WorseLabelsError(f"{text} GUARD.MODE is 'stop'.")
        logger.warning("%s", text)

    def _first_alarm(self, history: Mapping[int, Figures]) -> int | None:
        """The epoch that ends the first ``epochs`` bad ones in a row."""
        start, row = distinctness(history[1]), 0
        for number in sorted(history):
            bad = distinctness(history[number]) < start - (1 - WORSE) * abs(start)
            row = row + 1 if bad else 0
            if row == self.epochs:
                return number
        return None

    def _sentence(self, history: Mapping[int, Figures], eps: Any) -> str:
        first, last = history[1], history[max(history)]
        return (
            f"The pseudo labels have become worse than the start's: for {self.epochs} epochs their clusters have been "
            f"less distinct (mean silhouette of all images {distinctness(last):.2f}, in epoch 1 "
            f"{distinctness(first):.2f}); {_remedy(first, last, eps)}."
        )


def distinctness(figures: Figures) -> float:
    """Mean of both domains' silhouette, in which an image without a cluster counts 0; a domain without one is 0."""
    values = [figures.get(f"{d.word}/silhouette", 0) * figures.get(f"{d.word}/clustered", 0) for d in Domain]
    return float(np.nan_to_num(values).mean()) / 100


def _remedy(first: Figures, last: Figures, eps: Any) -> str:
    """What to change, by what happened to the clusters."""
    rate = "lower SOLVER.BASE_LR or begin with stronger weights"
    if eps == "auto":
        return rate
    before, now = (sum(figures.get(f"{d.word}/clustered", 0) for d in Domain) for figures in (first, last))
    pairs = [[figures.get(f"{d.word}/largest", 0) for figures in (first, last)] for d in Domain]
    merged = any(largest > 2 * at_first for at_first, largest in pairs)
    if merged:
        return f"clusters have merged, so lower CLUSTER.EPS (now {eps}) or set it to auto, or {rate}"
    if now < WORSE * before:
        return f"images have left the clusters, so raise CLUSTER.EPS (now {eps}) or set it to auto, or {rate}"
    return f"{rate}, or set CLUSTER.EPS (now {eps}) to auto"
