"""Base of the matchers: once per epoch, from clusters to an assignment across the domains."""

from __future__ import annotations

from typing import Any

from ...functional.types import Assignment, Epoch
from ...runtime.sections import construct
from ..parts import Part, PartRegistry

MATCHER_REGISTRY = PartRegistry("MATCHER", "MODEL.MATCHERS")
MATCHER_REGISTRY.__doc__ = (
    "Matchers by name. A loss head takes one as an argument, whose keys join its section; where a config chooses one "
    "by its name, its keys are those of ``MODEL.MATCHERS``."
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


def matcher_named(name: str, cfg: Any = None) -> Matcher:
    """The matcher of that name with its keys in ``MODEL.MATCHERS``, or with their defaults.

    Raises:
        ValueError: the name is unknown, or a value is not allowed.
    """
    if name not in MATCHER_REGISTRY.names():
        raise ValueError(f"MATCHER is {name!r}; it is one of {MATCHER_REGISTRY.names()}.")
    cls = MATCHER_REGISTRY.get(name)
    return cls() if cfg is None else construct(cls, cfg)
