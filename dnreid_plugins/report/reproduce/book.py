"""The pages: one for each item, written when it is finished, and an index of all that are there."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...data.digest import short_hash
from ...engine.identity import code_version
from ...runtime.files import write_atomically
from ..ablation import as_cell
from ..store import read_json
from .catalogue import SETS, Item, items
from .draw import Picture
from .plan import RUNS, Choice, RowRuns

Record = dict[str, Any]


def stem(item: Item, choice: Choice) -> Path:
    """The page of an item without its ending; a zero-shot item has one for each set that is tested on."""
    other = item.kind == "zero-shot" and choice.test.name != choice.data.other
    return (
        choice.out
        / choice.data.name.lower()
        / (f"{item.id}-{choice.test.name.lower()}" if other else item.id)
    )


def command(item: Item, choice: Choice) -> str:
    """The command line that makes the item."""
    words = ["dnreid reproduce run", item.id, "--data", choice.data.name]
    if item.kind == "zero-shot" and choice.test.name != choice.data.other:
        words += ["--test", choice.test.name]
    if item.kind not in ("statistics", "cost"):
        words += ["--seeds", ",".join(map(str, choice.seeds))]
        if choice.data_seeds != (0,):
            words += ["--data-seeds", ",".join(map(str, choice.data_seeds))]
    return " ".join([*words, *choice.overrides])


def key_of(item: Item, rows: Sequence[RowRuns], choice: Choice) -> str:
    """Names what a page is made of: the item as it is described, its runs and the code."""
    runs = [(row.row.name, row.row.why, [run.key for _, run in row.runs]) for row in rows]
    return short_hash(repr([item.content, command(item, choice), runs, code_version()]))


def keys_by_row(rows: Sequence[RowRuns]) -> dict[str, list[str]]:
    """The keys of the runs of each row that has some."""
    return {row.row.name: [run.key for _, run in row.runs] for row in rows if row.runs}


def record_of(item: Item, choice: Choice) -> Record:
    """What was kept of the item's page; empty where there is none."""
    return read_json(stem(item, choice).with_suffix(".json"))


def write(
    item: Item, rows: Sequence[RowRuns], choice: Choice, text: str, pictures: Sequence[Picture]
) -> Record:
    """Write the pictures of an item, what is kept of its page, the page, and the index anew; what was kept."""
    base = stem(item, choice)
    base.parent.mkdir(parents=True, exist_ok=True)
    files = []
    for number, picture in enumerate(pictures, 1):
        name = f"{base.name}{f'-{number}' if len(pictures) > 1 else ''}.png"
        _write(base.parent / name, picture.content)
        files.append({"file": name, "alt": picture.alt})
    record: Record = {
        "key": key_of(item, rows, choice),
        "id": item.id,
        "data": choice.data.name,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "code": code_version(),
        "command": command(item, choice),
        "title": item.title,
        "paper": item.paper,
        "notes": [*_about(item, choice), *item.notes],
        "text": text,
        "pictures": files,
        "runs": keys_by_row(rows),
    }
    content = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    _write(base.with_suffix(".json"), content.encode())
    page = f"# {as_cell(item.paper)}: {as_cell(item.title)}\n\n{body(record, '')}"
    _write(base.with_suffix(".md"), page.encode())
    write_index(choice.out)
    return record


def _about(item: Item, choice: Choice) -> list[str]:
    """What every reader of the numbers must know."""
    found = []
    like = item.like(choice.data)
    if item.kind == "zero-shot":
        found.append(f"Trained on {choice.data.name}, tested on {choice.test.name}.")
        like = f"{like} to {item.like(choice.test)}"
    if choice.data.rendered and item.kind == "statistics":
        found.append(f"{choice.data.name} is rendered; the paper's figures are those of {like}.")
    if choice.data.rendered and item.kind in ("table", "sweep", "zero-shot"):
        found.append(
            f"{choice.data.name} is rendered and the paper's figures are those of {like}: only the order of the rows "
            "and what one row has over another can be compared."
        )
    if choice.overrides:
        found.append(f"Every row with {as_cell(' '.join(choice.overrides))}.")
    return found


def told(record: Mapping[str, Any]) -> str:
    """The notes of an item, and of which runs it is."""
    runs = [f"{name}: {', '.join(keys)}" for name, keys in record["runs"].items()]
    return "\n".join([*record["notes"], *(["Runs: " + "; ".join(runs)] if runs else [])])


def body(record: Mapping[str, Any], folder: str) -> str:
    """The text of an item; ``folder``: where its pictures lie, seen from the page."""
    lines = [f"`{as_cell(record['command'])}`", ""]
    for picture in record["pictures"]:
        lines += [f"![{as_cell(picture['alt'])}]({quote(folder + picture['file'])})", ""]
    lines += [record["text"], ""]
    lines += [f"{note}\n" for note in record["notes"]]
    runs = "; ".join(f"{as_cell(name)}: {', '.join(keys)}" for name, keys in record["runs"].items())
    lines.append(f"*{record['date']}, {as_cell(record['code'])}.*")
    if runs:
        lines += ["", f"<details><summary>Runs (keys of {RUNS})</summary>{runs}</details>"]
    return "\n".join(lines) + "\n"


def write_index(out: Path) -> Path:
    """Write ``<out>.md``: which command makes which table or figure, then all that were made; its path."""
    order = list(items())
    pages = {path: read_json(path) for path in out.glob("*/*.json")}
    found = sorted(
        pages.items(),
        key=lambda page: (
            list(SETS).index(page[1]["data"]),
            order.index(page[1]["id"]) if page[1]["id"] in order else 999,
        ),
    )
    lines = ["# Results", "", INTRODUCTION, ""]
    lines += ["| what | data | command | date |", "|---|---|---|---|"]
    for path, one in found:
        place = quote(path.with_suffix(".md").relative_to(out.parent).as_posix())
        title = f"{one['paper'].split(' (')[0]}: {one['title']}"
        lines.append(
            f"| [{as_cell(title)}]({place}) | {one['data']} | `{as_cell(one['command'])}` | {one['date'][:10]} |"
        )
    for path, one in found:
        lines += ["", f"## {as_cell(one['paper'])}, {as_cell(one['title'])}, {one['data']}", ""]
        lines.append(body(one, f"{path.parent.relative_to(out.parent).as_posix()}/").rstrip())
    index = out.parent / f"{out.name}.md"
    _write(index, ("\n".join(lines) + "\n").encode())
    return index


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda file: file.write(content))


INTRODUCTION = """\
The tables and figures of the papers, made again. This page is written by `dnreid reproduce run`, which trains what is
missing; `dnreid reproduce list` names all items with their state and cost. "Paper" is the published figure, "ours" the
mean of our runs with its spread, "difference" ours less the paper's."""
