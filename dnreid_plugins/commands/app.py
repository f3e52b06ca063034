"""``dnreid COMMAND``: a command is imported when its name is given, and does its slow imports when it runs."""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperGroup

#: Name on the command line -> module of this room; the function of the same name is the command.
COMMANDS: dict[str, str] = {"serve": "serve"}


class Commands(TyperGroup):
    """Imports the module of a command only when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__package__}.{COMMANDS[cmd_name]}")
        alone = typer.Typer(add_completion=False)
        alone.command(name=cmd_name)(getattr(module, cmd_name.replace("-", "_")))
        return typer.main.get_command(alone)


app = typer.Typer(cls=Commands, no_args_is_help=True, help="Day/night re-identification.")


@app.callback()
def _options() -> None:
    """Day/night re-identification for fast-reid."""


def main() -> None:
    """The entry point ``dnreid``."""
    app()
