"""``dnreid methods``, ``datasets``, ``configs``, ``backbones`` and ``doctor``: what there is on this machine."""

from __future__ import annotations

import sys

import typer

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


def doctor() -> None:
    """Check the installation and explain the messages of pip check about fast-reid."""
    from ..engine.doctor import examine

    text, well = examine()
    sys.stdout.write(text)
    raise typer.Exit(0 if well else 1)


def _show(kind: str) -> None:
    if kind != "configs":
        load()
    from ..report.lists import text_of

    sys.stdout.write(f"{text_of(kind)}\n")
