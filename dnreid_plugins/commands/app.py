"""``dnreid COMMAND``: a command is imported when its name is given, and the plug-ins are loaded when it runs.

A command is a file of this room and a line of `COMMANDS`: a function, or a Typer with commands of its own. It raises
ValueError or OSError with one sentence, which becomes ``error: ...`` and exit code 1. Its module is imported for every
list of the commands, so its slow imports stand inside the function. Names that a module may define:

``LOADS_ITSELF``: True where the function calls `loading.load` itself, if at all; else that was done before it runs.
``CONTEXT``: Typer's ``context_settings``, such as `KEY_VALUE`.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from ..runtime.sentences import sentences
from ..runtime.shipped import instead
from .loading import load

#: Name on the command line -> module of this room; the function of the same name is the command.
COMMANDS: dict[str, str] = {
    "check": "check",
    "train": "train",
    "eval": "eval",
    "demo": "train",
    "report": "report",
    "suggest": "suggest",
    "index": "index",
    "search": "search",
    "serve": "serve",
    "calibrate": "calibrate",
    "export": "export",
    "trials": "trials",
    "reproduce": "reproduce",
    "methods": "lists",
    "parts": "lists",
    "datasets": "lists",
    "configs": "lists",
    "backbones": "lists",
    "statistics": "statistics",
    "fake-dataset": "fake_dataset",
    "doctor": "lists",
}
NAME = "dnreid"
#: Set by the shell while it asks for completions.
COMPLETION = "_DNREID_COMPLETE"
# ClickException; where it is defined depends on Typer's version.
_REFUSED: Any = typer.BadParameter.__mro__[2]


class Commands(TyperGroup):
    """Imports the module of a command only when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{COMMANDS[cmd_name]}")
        function = getattr(module, cmd_name.replace("-", "_"))
        if isinstance(function, typer.Typer):  # a command with commands of its own
            return typer.main.get_command(function)
        alone = typer.Typer(add_completion=False)
        settings = getattr(module, "CONTEXT", None)
        ready = function if getattr(module, "LOADS_ITSELF", False) else _loaded(function)
        alone.command(name=cmd_name, context_settings=settings)(ready)
        return typer.main.get_command(alone)


def _loaded(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        load()
        return function(*args, **kwargs)

    return run


app = typer.Typer(cls=Commands, name=NAME)


@app.callback()
def _options() -> None:
    """Day/night re-identification: find the same vehicle or person by day and by night, without labels."""


def main(words: Sequence[str] | None = None) -> None:
    """The entry point ``dnreid``; ``words`` are those after the program's name."""
    words = list(sys.argv[1:] if words is None else words)
    command = typer.main.get_command(app)
    if COMPLETION in os.environ:
        command.main(words, prog_name=NAME, complete_var=COMPLETION)
    with sentences():
        try:
            code = _run(command, words or ["--help"])
            sys.stdout.flush()
        except BrokenPipeError:  # of `dnreid configs | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            code = 1
    if code:
        sys.exit(code)


def _run(command: Any, words: list[str]) -> int:
    """The exit code; an objection of the parser is raised as ValueError."""
    if not words[0].startswith("-") and words[0] not in COMMANDS:
        raise ValueError(f"There is no command {words[0]!r}; {instead(words[0], list(COMMANDS))}")
    try:
        with command.make_context(NAME, words) as context:
            command.invoke(context)
    except typer.Exit as left:
        return left.exit_code
    except _REFUSED as refused:
        text = " ".join(refused.format_message().split()).rstrip(".")
        which = f"{NAME} {words[0]}" if words[0] in COMMANDS else NAME
        raise ValueError(f"{text}; `{which} --help` shows what can be given.") from None
    return 0
