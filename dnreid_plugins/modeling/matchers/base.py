"""Base of the matchers: once per epoch, from clusters to an assignment across the domains."""

from __future__ import annotations

from fastreid.utils.registry import Registry

from ...functional.types import Assignment, Epoch
from ..parts import Part

MATCHER_REGISTRY = Registry("MATCHER")
MATCHER_REGISTRY.__doc__ = (
    "Matchers by name; a loss head takes one as an argument, whose keys join its section."
)


class Matcher(Part):
    """Base of all matchers.

    Partial coverage is normal, either side may be larger or empty, and swapping the domains swaps the answer.
    """

    def match(self, epoch: Epoch, *, first: int = 1) -> tuple[Assignment, dict[str, float]]:
        """The matching of this epoch's day and night clusters, and figures for the health line.

        ``first`` is the epoch from which on its loss head trains. Called once per epoch, before any
        part's `begin_epoch`, and once more with the same epoch on a resume.
        """
        raise NotImplementedError
