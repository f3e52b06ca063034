"""``dnreid doctor``."""

from __future__ import annotations

import sys

import typer

LOADS_ITSELF = True


def doctor() -> None:
    """Check the installation and explain the messages of pip check about fast-reid."""
    from ..engine.doctor import examine

    text, well = examine()
    sys.stdout.write(text)
    raise typer.Exit(0 if well else 1)
