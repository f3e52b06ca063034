"""``dnreid suggest``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Day, Night, Table


def suggest(
    day: Day = "",
    night: Night = "",
    csv: Table = "",
    data: Annotated[str, typer.Option(help="A data set that the system has a config for.")] = "",
    config: Annotated[
        str,
        typer.Option(
            help="The system or config to begin from; by default the system with a config for folders."
        ),
    ] = "",
    out: Annotated[Path, typer.Option(help="The config to write.")] = Path("suggested.yml"),
    picture: Annotated[
        Path | None, typer.Option(help="Draw the k-distance curves into this .png, .svg or .pdf.")
    ] = None,
) -> None:
    """Look at your images with the start weights and propose settings, ready for training.

    dnreid suggest --day mycrops/day --night mycrops/night --out suggested.yml

    dnreid train suggested.yml
    """
    from fastreid.config import get_cfg

    from ..engine.suggestion import check_target, write_suggestion
    from ..engine.suggestion import suggest as propose
    from ..report.k_distance_picture import check_ending, draw_k_distances
    from ..runtime.config_files import merge_with_suggestions
    from ..runtime.shipped import systems
    from .choice import OwnImages, chosen

    files = [out] if picture is None else [out, picture]
    for file in files:
        check_target(file)
    if picture is not None:
        check_ending(picture)
    own = OwnImages(*(str(Path(path).expanduser().absolute()) if path else "" for path in (day, night, csv)))
    named = config or next(name for name, sets in systems().items() if "folder" in sets)
    base, settings = chosen(named, data, own, None)
    cfg = get_cfg()
    merge_with_suggestions(cfg, base, settings)
    found = propose(cfg)
    show(found)
    if picture is not None:
        curves = {domain: view.curve for domain, view in found.views.items()}
        radii = {domain: view.radius for domain, view in found.views.items()}
        draw_k_distances(picture, curves, radii, cfg.CLUSTER.MIN_SAMPLES)
    write_suggestion(out, found, base, settings)
    typer.echo(f"Written to {' and '.join(map(str, files))}; train with: dnreid train {out}")


def show(found: object) -> None:
    """Print the proposals as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ..engine.suggestion import Suggestion

    assert isinstance(found, Suggestion)
    table = Table("setting", "value", "why")
    for choice in found.choices:
        name, _, value = str(choice.value).partition(": ")
        cells = (choice.key, str(choice.value)) if choice.key else (name, value)
        table.add_row(*(Text(cell) for cell in (*cells, choice.reason)))
    Console().print(table)
