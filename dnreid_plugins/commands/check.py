"""``dnreid check``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .loading import load
from .options import Day, Night, Table

if TYPE_CHECKING:
    from ..data.datasets import CrossDomainDataset
    from .choice import OwnImages

LOADS_ITSELF = True


def check(
    day: Day = "",
    night: Night = "",
    csv: Table = "",
    data: Annotated[str, typer.Option(help="A registered data set, such as dn348.")] = "",
    json: Annotated[str, typer.Option(help="Write everything that was found into this file.")] = "",
) -> None:
    """Look at all images before any training: what was understood, and what is wrong.

    Exit code 1 if training could not start.

    dnreid check --day mycrops/day --night mycrops/night
    """
    from .choice import OwnImages

    own = OwnImages(day, night, csv)
    if bool(own) == bool(data):
        raise ValueError(
            "It is not said which images to check; give one of --day with --night, --csv, and --data."
        )
    file = Path(json).absolute()
    folder = next(folder for folder in file.parents if folder.exists())
    if json and (file.is_dir() or not os.access(folder, os.W_OK)):
        raise ValueError(f"--json is {json!r}, which cannot be written; choose another file.")
    load()
    from ..evaluation.results import write_json
    from ..report.check import examine

    found = examine(_opened(own, data))
    if json:
        write_json(file, found.as_dict())
    sys.stdout.write(found.text())
    raise typer.Exit(1 if found.objections else 0)


def _opened(own: OwnImages, data: str) -> CrossDomainDataset:
    """The reader of the user's own images, or of a registered set."""
    from fastreid.config import get_cfg
    from fastreid.data.datasets import DATASET_REGISTRY

    from ..data.datasets import CrossDomainDataset, configure
    from ..data.train_data import read_dataset
    from ..runtime.config_files import merge_with_suggestions
    from ..runtime.shipped import instead, one_of

    cfg = get_cfg()
    merge_with_suggestions(cfg, "", own.settings if own else [])
    configure(cfg)
    if own:
        return read_dataset(cfg.DATASETS.NAMES[0])
    known = [name for name, one in DATASET_REGISTRY._obj_map.items() if issubclass(one, CrossDomainDataset)]
    name = one_of(data, known)
    if name is None:
        raise ValueError(f"There is no data set {data!r} with two domains; {instead(data, known)}")
    return read_dataset(name)
