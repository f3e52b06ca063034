"""``dnreid demo``."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from .loading import load
from .words import KEY_VALUE as CONTEXT
from .words import pairs_only

__all__ = ["CONTEXT", "LOADS_ITSELF", "demo"]

LOADS_ITSELF = True


def demo(
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY VALUE]...", help="Keys of the config.")
    ] = None,
) -> None:
    """Train on the embedded rendered data set, evaluate before and after; about two minutes on two cores."""
    opts = pairs_only(pairs)
    # Small convolutions run fastest on one thread; torch reads this when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    load()
    from .. import cli
    from ..runtime.shipped import config_path

    cli.main(["--config-file", str(config_path("DNMini/demo")), *opts])
