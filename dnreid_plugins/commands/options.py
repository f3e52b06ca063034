"""Options that several commands have."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class DomainName(str, Enum):
    """The domain of images."""

    day = "day"
    night = "night"


Run = Annotated[str, typer.Argument(help="Folder of a run, or a config with --weights.")]
Images = Annotated[
    list[str],
    typer.Argument(help="Folders, images, tables (.csv with the columns path and, if known, domain and id)."),
]
Domain = Annotated[DomainName | None, typer.Option(help="Domain of these images.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave images out that cannot be read.")]
Weights = Annotated[
    str | None, typer.Option(help="Checkpoint: a path or a name in RUN.", show_default="model_final.pth")
]
Device = Annotated[str | None, typer.Option(help="Such as cpu or cuda:1.", show_default="that of RUN")]
Day = Annotated[str, typer.Option(help="Folder of your own day (visible) images.")]
Night = Annotated[str, typer.Option(help="Folder of your own night (infrared) images.")]
Table = Annotated[
    str, typer.Option(help="Table of your own images: path, domain and, if known, id, camera, split.")
]
