"""``dnreid serve``: the local page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    folder: Annotated[Path, typer.Argument(help="A gallery of `dnreid index`, or the folder of a run.")],
    port: Annotated[int, typer.Option(help="Where the page listens; 0 chooses a free one.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's own see it.")
    ] = ("127.0.0.1"),
) -> None:
    """Open a page to search a gallery by an image, and to look through clusters and correct them."""
    from ..retrieval.web.app import is_loopback, listen, run_server

    with listen(host, port) as listener:
        address = f"[{host}]" if ":" in host else host
        if not is_loopback(listener):
            text = "warning: everybody who reaches {}, without a password, sees the images and can correct clusters."
            typer.echo(text.format(address), err=True)

        def ready() -> None:
            typer.echo(f"http://{address}:{listener.getsockname()[1]}  (Ctrl+C ends it)")

        run_server(folder, listener, ready)
