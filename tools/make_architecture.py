"""Draw the two pictures of docs/architecture.md from code: the rooms, and what happens in an epoch."""

from __future__ import annotations

import ast
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import grimp
from importlinter.api import read_configuration
from made_page import ROOT, replace_part, write_or_check
from trace_epoch import Call, first_sentence, trace

PACKAGE = "dnreid_plugins"
PAGE = ROOT / "docs" / "architecture.md"
#: The trainer's methods in the order in which they are called; frames within frames are loops.
FLOW = (
    ("before the first epoch", ("before_train",)),
    (
        "each epoch",
        ("before_epoch", ("each step", ("before_step", "run_step", "after_step")), "after_epoch"),
    ),
    ("at the end", ("after_train",)),
)
#: Wide boxes close together: the picture is read from top to bottom.
MARGIN = '"subGraphTitleMargin": {"top": 4, "bottom": 14}'
STYLE = f'%%{{init: {{"flowchart": {{"wrappingWidth": 520, "rankSpacing": 36, {MARGIN}}}}}}}%%'
#: ``(room, room that it imports)``
Imports = set[tuple[str, str]]


def page() -> str:
    """The page with both pictures drawn anew."""
    text, layers = PAGE.read_text(encoding="utf-8"), room_names()
    imports = room_imports(layers)
    drawn = f"{picture(rooms(layers, imports))}\n{import_table(layers, imports)}"
    return replace_part(replace_part(text, "rooms", drawn), "epoch", picture(flow(trace())))


def picture(lines: Sequence[str]) -> str:
    return "\n".join(["```mermaid", *lines, "```", ""])


def box(name: str, title: str, sentence: str) -> str:
    """A node of mermaid."""
    text = sentence.replace("&", "#amp;").replace("<", "#lt;").replace(">", "#gt;").replace('"', "#quot;")
    return f'{name}["<b>{title}</b>{"<br>" * bool(text)}{text}"]'


# ------------------------------------------------------------------ the rooms


def room_names() -> list[str]:
    """The rooms from the top down, as the import contract has them."""
    contracts = read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    return next(one["layers"] for one in contracts if one.get("containers") == [PACKAGE])


def room_imports(layers: Sequence[str]) -> Imports:
    """What the files of the rooms really import."""
    graph = grimp.build_graph(PACKAGE, exclude_type_checking_imports=True)
    found: Imports = set()
    for module in graph.modules:
        for other in graph.find_modules_directly_imported_by(module):
            rooms = [name.split(".")[1] for name in (module, other) if "." in name]
            if len(set(rooms)) == 2 and set(rooms) <= set(layers):
                found.add((rooms[0], rooms[1]))
    return found


def rooms(layers: Sequence[str], imports: Imports) -> list[str]:
    """A box per room with its docstring; an arrow per import that does not follow from other arrows."""
    lines = ["flowchart TB"]
    for room in layers:
        folder = ROOT / PACKAGE / room
        file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        lines.append(f"    {box(room, room, first_sentence(text))}")
    pairs = [(one, other) for one in layers for other in layers if (one, other) in imports]
    return lines + [f"    {one} --> {other}" for one, other in pairs if not _follows(one, other, imports)]


def import_table(layers: Sequence[str], imports: Imports) -> str:
    """All imports between rooms; a row imports, a column is imported."""
    columns = [room for room in layers if any(other == room for _, other in imports)]
    lines = ["| imports | " + " | ".join(columns) + " |", "|---|" + ":---:|" * len(columns)]
    for room in (one for one in layers if any(first == one for first, _ in imports)):
        marks = ("x" if (room, other) in imports else "" for other in columns)
        lines.append(f"| **{room}** | " + " | ".join(marks) + " |")
    return "\n".join(lines) + "\n"


def _follows(one: str, other: str, imports: Imports) -> bool:
    """Does ``one`` import ``other`` through a third room as well?"""
    return any(a == one and b != other and _reaches(b, other, imports) for a, b in imports)


def _reaches(one: str, other: str, imports: Imports) -> bool:
    return (one, other) in imports or any(a == one and _reaches(b, other, imports) for a, b in imports)


# ------------------------------------------------------------------ an epoch


def flow(calls: Sequence[Call]) -> list[str]:
    """The calls from top to bottom: those of a contract in colour, neighbouring hooks in one grey box."""
    names: list[str] = []
    lines = [line for title, moments in FLOW for line in _frame(title, moments, calls, names, "    ")]
    return [
        STYLE,
        "flowchart TB",
        *lines,
        f"    {' --> '.join(names)}",
        "    classDef hook fill:#eee,stroke:#aaa,color:#333",
    ]


def _frame(
    title: str, moments: Sequence[Any], calls: Sequence[Call], names: list[str], indent: str
) -> list[str]:
    lines = [f'{indent}subgraph s{len(names)}["{title}"]']
    for moment in moments:
        if not isinstance(moment, str):
            lines += _frame(*moment, calls, names, f"{indent}    ")
            continue
        for hook, group in itertools.groupby(
            (one for one in calls if one.moment == moment), lambda one: one.hook
        ):
            for title, sentence in _texts(hook, list(group)):
                names.append(f"n{len(names)}")
                lines.append(f"{indent}    {box(names[-1], title, sentence)}{':::hook' * hook}")
    return [*lines, f"{indent}end"]


def _texts(hook: bool, calls: Sequence[Call]) -> list[tuple[str, str]]:
    """Title and text of the boxes of neighbouring calls."""
    if hook:
        return [(calls[0].moment, ", ".join(call.title for call in calls))]
    return [(call.title, call.sentence) for call in calls]


def main(argv: Sequence[str] | None = None) -> int:
    return write_or_check(PAGE, page, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
