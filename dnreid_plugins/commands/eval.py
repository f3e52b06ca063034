"""``dnreid eval``."""

from __future__ import annotations

from typing import Annotated

import typer

from .loading import load
from .words import KEY_VALUE as CONTEXT
from .words import pairs_only

__all__ = ["CONTEXT", "LOADS_ITSELF", "eval"]

LOADS_ITSELF = True


def eval(
    run: Annotated[str, typer.Argument(help="The OUTPUT_DIR of a run.")],
    pairs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY VALUE]...", help="Keys of the config, such as DATASETS.TESTS."),
    ] = None,
    gpus: Annotated[int, typer.Option(help="Processes, one per GPU.")] = 1,
) -> None:
    """Evaluate the last checkpoint of a run by the run's own config."""
    from ..runtime.run_folder import CONFIG, last_checkpoint

    weights, opts = last_checkpoint(run), pairs_only(pairs)
    # Where the run lies now, whatever it was called when it was trained.
    own = ["MODEL.WEIGHTS", str(weights), "OUTPUT_DIR", str(weights.parent)]
    load()
    from .. import cli

    cli.main(
        ["--config-file", str(weights.parent / CONFIG), "--eval-only", "--num-gpus", str(gpus), *own, *opts]
    )
