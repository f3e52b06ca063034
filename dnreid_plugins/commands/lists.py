"""``dnreid methods``, ``datasets``, ``configs`` and ``backbones``: what there is to choose from."""

from __future__ import annotations

import sys

from .loading import load

LOADS_ITSELF = True


def methods() -> None:
    """List the methods and the parts that they consist of."""
    _show("methods")


def datasets() -> None:
    """List the data sets that a config can name."""
    _show("datasets")


def configs() -> None:
    """List the shipped configs."""
    _show("configs")


def backbones() -> None:
    """List the backbones that a config can name."""
    _show("backbones")


def _show(kind: str) -> None:
    if kind != "configs":
        load()
    from ..report.lists import text_of

    sys.stdout.write(f"{text_of(kind)}\n")
