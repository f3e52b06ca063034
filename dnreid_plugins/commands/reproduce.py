"""``dnreid reproduce``: the tables and figures of the papers, one command each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .loading import load
from .words import KEY_VALUE, pairs_only

if TYPE_CHECKING:
    from ..report.reproduce import Choice

LOADS_ITSELF = True
DATA = "DNMini"

Data = Annotated[str, typer.Option(help="Trained on: DN348, DNWild, RegDB, DNMini or DNMiniWild.")]
Test = Annotated[
    str, typer.Option(help="Zero-shot tables: tested on this set.", show_default="the other set of its kind")
]
Seeds = Annotated[str, typer.Option(help="Seeds of the runs, such as 0,1,2.")]
DataSeeds = Annotated[str, typer.Option(help="Seeds of the renderings, for DNMini and DNMiniWild.")]
Out = Annotated[Path, typer.Option(help="Folder of the pages; an index of them stands beside it.")]
Weights = Annotated[str, typer.Option(help="ImageNet weights of ResNet-50, for the rows that need them.")]
Clip = Annotated[
    str, typer.Option(help="CLIP's weights, for the rows that need them.", show_default="those in the cache")
]
Logs = Annotated[Path, typer.Option(help="Folder of the runs.")]

reproduce = typer.Typer(
    name="reproduce", no_args_is_help=True, help="Make the tables and figures of the papers again."
)


@reproduce.command(name="list", context_settings=KEY_VALUE)
def list_items(
    pairs: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY VALUE]...", help="Keys for every row.")
    ] = None,
    data: Data = DATA,
    test: Test = "",
    seeds: Seeds = "0",
    data_seeds: DataSeeds = "0",
    weights: Weights = "",
    clip: Clip = "",
    out: Out = Path("docs/results"),
    logs: Logs = Path("logs/reproduce"),
) -> None:
    """List every table and figure: its id, what is there of it, and what it still costs."""
    overrides = tuple(pairs_only(pairs))
    load()
    from ..report.reproduce import list_text

    choice = _choice(
        data, test, seeds, data_seeds, out=out, logs=logs, weights=weights, clip=clip, overrides=overrides
    )
    typer.echo(list_text(choice))


@reproduce.command(context_settings=KEY_VALUE)
def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]... [KEY VALUE]...", help="Items of the list; then keys for every row."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All items, those with few runs first.")] = False,
    data: Data = DATA,
    test: Test = "",
    seeds: Seeds = "0",
    data_seeds: DataSeeds = "0",
    jobs: Annotated[int, typer.Option(min=1, help="Runs at the same time, one thread each.")] = 1,
    weights: Weights = "",
    clip: Clip = "",
    out: Out = Path("docs/results"),
    logs: Logs = Path("logs/reproduce"),
) -> None:
    """Make tables and figures: train what is missing, print paper, ours and difference, draw, write the pages.

    The same command continues: a finished run is not repeated, one that was cut goes on.

    dnreid reproduce run cia-2 --data DNMini --seeds 0,1,2
    """
    import logging

    names, pairs = list[str](), list(words or ())
    # an id in any case, a key never has a hyphen
    while pairs and ("-" in pairs[0] or not pairs[0].isupper()):
        names.append(pairs.pop(0))
    if stray := [name for name in names if name.isdecimal()]:
        raise ValueError(
            f"{stray[0]!r} is no table or figure; several seeds have commas between them, as in 0,1."
        )
    if every == bool(names):
        raise ValueError("Name the items to make, or give --all; `dnreid reproduce list` shows their ids.")
    overrides = pairs_only(pairs)
    load()
    from ..report.reproduce import items, named, run_items

    logging.basicConfig(format="%(message)s")
    logging.getLogger("dnreid_plugins.report").setLevel(logging.INFO)
    choice = _choice(
        data,
        test,
        seeds,
        data_seeds,
        out=out,
        logs=logs,
        jobs=jobs,
        weights=weights,
        clip=clip,
        overrides=tuple(overrides),
    )
    chosen = [item for item in items().values() if item.on(choice.data)] if every else named(names)
    run_items(chosen, choice, typer.echo)


def _choice(data: str, test: str, seeds: str, data_seeds: str, **rest: Any) -> Choice:
    from ..report.reproduce import SETS, Choice
    from ..report.reproduce.catalogue import data_set

    trained = data_set(data)
    tested = data_set(test, "--test") if test else SETS[trained.other]
    if tested == trained:
        raise ValueError(f"--test is {test!r}, the set that is trained on; choose another one.")
    numbers = _numbers(seeds, "--seeds"), _numbers(data_seeds, "--data-seeds")
    if numbers[1] != (0,) and not trained.rendered:
        raise ValueError(f"--data-seeds is for rendered sets, and {trained.name} is none; leave it out.")
    return Choice(trained, tested, *numbers, **rest)


def _numbers(text: str, option: str) -> tuple[int, ...]:
    """``"0,1,2"`` or ``"0-2"`` -> 0, 1, 2."""
    from .trials import numbers_of

    try:
        found = numbers_of(text)
    except ValueError:
        found = None
    if not found:
        raise ValueError(f"{option} is {text!r}; give numbers such as 0 or 0,1,2.")
    return tuple(dict.fromkeys(found))
