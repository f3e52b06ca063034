"""Make items, the cheapest first: train what is missing, measure, draw, write; and tell what there is."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence

from tabulate import tabulate

from ...engine.identity import code_version
from ..store import Run, read_json
from . import book, draw
from .catalogue import Item, items
from .draw import Picture
from .figures import make_figure
from .figures_of_runs import of_store, tested
from .fixed import cost_of, statistics_of
from .plan import Choice, RowRuns, check, cost, missing, runs_of, train
from .tables import table_of

logger = logging.getLogger(__name__)

__all__ = ["Choice", "list_text", "run_items"]


def run_items(chosen: Sequence[Item], choice: Choice, say: Callable[[str], None]) -> None:
    """Make every item that is not there yet; a stop loses nothing that was finished.

    Args:
        chosen: in any order.
        choice: what they are made on, and where they go.
        say: gets each text for the screen.

    Raises:
        ValueError: something that they need is not there, or an item failed; the others are made.
    """
    plans = {item.id: (item, runs_of(item, choice)) for item in chosen}
    check(list(plans.values()), choice)
    failed: list[str] = []
    while plans:
        todo = {name: missing(*one, choice) for name, one in plans.items()}
        name = min(todo, key=lambda name: len(todo[name]))
        item, rows = plans.pop(name)
        if not todo[name] and book.record_of(item, choice).get("key") == book.key_of(item, rows, choice):
            say(f"{name} is there: {book.stem(item, choice)}.md")
            continue
        try:
            if todo[name]:
                say(f"{name}: {item.title}; to train: {cost(todo[name], choice)}")
                train(todo[name], choice)
            text, pictures = make(item, rows, choice)
            record = book.write(item, rows, choice, text, pictures)
            say(f"\n{item.title}, {choice.data.name}\n\n{text}\n\n{book.told(record)}")
            say(f"Written to {book.stem(item, choice)}.md\n")
        except ValueError as error:
            failed.append(f"{name}: {error}")
            say(f"{name} could not be made: {error}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(chosen)} could not be made; the first is {failed[0]}")


def make(item: Item, rows: Sequence[RowRuns], choice: Choice) -> tuple[str, list[Picture]]:
    """The text and the pictures of an item whose runs are all there.

    Raises:
        ValueError: it cannot be measured or drawn.
    """
    if item.kind == "statistics":
        return statistics_of(item, choice), []
    if item.kind == "cost":
        return cost_of(item), []
    if item.kind == "figure":
        return make_figure(item, rows, choice)
    found = tested(rows, choice) if item.kind == "zero-shot" else of_store(rows, choice)
    pictures = []
    if item.kind == "sweep":
        swept = [one for one in found if one.row.config]
        values = [float(one.row.value or 0.0) for one in swept]
        pictures = [draw.sweep(values, swept, (item.metrics[0], item.metrics[-1]), item.content["label"])]
    return table_of(item, found, choice), pictures


def list_text(choice: Choice) -> str:
    """Every item with its id, its state and what it still costs on a data set; a rendered set has all of them."""
    lines: list[list[str]] = []
    every: dict[str, Run] = {}
    for item in items().values():
        if not item.on(choice.data):
            continue
        rows = runs_of(item, choice)
        todo = missing(item, rows, choice)
        every |= {run.key: run for run in todo}
        lines.append(
            [
                item.id,
                f"{item.paper.split(' (')[0]}: {item.title}",
                _state(item, rows, choice),
                cost(todo, choice),
            ]
        )
    text = tabulate(lines, ["id", "what", "state", "to train"], tablefmt="simple", disable_numparse=True)
    how = f"`dnreid reproduce run ID ... --data {choice.data.name}` makes them; --all makes all."
    total = cost(list(every.values()), choice)
    return f"{text}\n\nTo train for all, items that share runs counted once: {total}.\n{how}"


def _state(item: Item, rows: Sequence[RowRuns], choice: Choice) -> str:
    """Written or not, how many runs are stored, of which code, and which rows cannot be made."""
    kept = read_json(choice.store)
    keys = {run.key for row in rows for _, run in row.runs}
    codes = {kept[key]["code"] for key in keys if key in kept}
    record = book.record_of(item, choice)
    words = []
    if record:
        same = record["runs"] == book.keys_by_row(rows)
        words.append(f"written {record['date'][:10]}{'' if same else ', not of these runs'}")
    if keys:
        words.append(f"{sum(key in kept for key in keys)} of {len(keys)} runs")
    if codes:
        other = "" if codes == {code_version()} else ", not the present one"
        words.append(f"code {', '.join(sorted(map(_short_code, codes)))}{other}")
    for why in dict.fromkeys(row.row.why for row in rows if row.row.why):
        words.append(f"{why}: {', '.join(row.row.name for row in rows if row.row.why == why)}")
    return "; ".join(words) or "not made"


def _short_code(code: str) -> str:
    """The digits of the package in the long name of a version."""
    found = re.search(r"\(([0-9a-f]+)\)", code)
    return found[1] if found else code
