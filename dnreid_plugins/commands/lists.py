"""``dnreid methods``, ``parts``, ``datasets``, ``configs``, ``backbones``, ``doctor``: what there is on a machine."""

from __future__ import annotations

import sys

import typer

from .loading import load

LOADS_ITSELF = True


def methods() -> None:
    """List the systems: their labels, their losses, and what they have a config for."""
    _show("methods")


def parts() -> None:
    """List the parts that a config can name: label sources, refiners, losses, matchers, blocks."""
    _show("parts")


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
    if kind not in ("configs", "methods"):  # which come from files
        load()
    from ..report.lists import text_of

    sys.stdout.write(f"{text_of(kind)}\n")
