"""The whole page as an ASGI application, and the server that runs it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from .cluster_pages import ClusterPages
from .guard import LOOPBACK, Guard
from .images import SIDES, file_copy
from .judgements import StaleError
from .pages import STATIC, Pages
from .search_pages import SearchPages
from .site import Site

#: Files beside the pages, by their type.
TYPES = {"site.css": "text/css", "site.js": "text/javascript"}
AN_HOUR = {"Cache-Control": "private, max-age=3600"}


def create_app(site: Site, *, hosts: frozenset[str] | None = LOOPBACK) -> Guard:
    """The application for ``site``; ``hosts`` are the names under which it answers, None = any."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    pages = Pages(site)
    app.include_router(SearchPages(pages).routes())
    app.include_router(ClusterPages(pages).routes())
    _files(app, site)
    _sentences(app, pages)
    return Guard(app, hosts=hosts)


def _files(app: FastAPI, site: Site) -> None:
    shelves = {
        "gallery": site.search.index.paths if site.search else [],
        "clusters": site.clusters.table.paths if site.clusters else [],
    }

    @app.get("/picture/{shelf}/{number}/{size}")
    def picture(
        shelf: Literal["gallery", "clusters"], number: int, size: Literal["small", "large"]
    ) -> Response:
        """An image by its number: no path is ever asked for."""
        if not 0 <= number < len(shelves[shelf]):
            raise HTTPException(404, f"There is no image {number}.")
        content = file_copy(shelves[shelf][number], SIDES[size])
        return Response(content, media_type="image/jpeg", headers=AN_HOUR)

    @app.get("/static/{name}")
    def static(name: Literal["site.css", "site.js"]) -> Response:
        return FileResponse(STATIC / name, media_type=TYPES[name])


def _sentences(app: FastAPI, pages: Pages) -> None:
    """Every end of a request is a page with a sentence."""

    def said(status: int) -> Callable[[Request, Any], HTMLResponse]:
        return lambda request, error: pages.sentence(str(error), status)

    def http(request: Request, error: Any) -> HTMLResponse:
        text = error.detail if error.detail != "Not Found" else "There is no such page."
        return pages.sentence(text, error.status_code)

    def disk(request: Request, error: Any) -> HTMLResponse:
        reason = error.strerror or str(error)
        return pages.sentence(f"It could not be saved ({reason}), so nothing was changed.", 500)

    def invalid(request: Request, error: Any) -> HTMLResponse:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"][1:])) or "the form"
        return pages.sentence(
            f"The value of {name} is missing or not allowed; go back and choose another.", 400
        )

    app.exception_handler(AnyHTTPException)(http)
    app.exception_handler(RequestValidationError)(invalid)
    app.exception_handler(StaleError)(said(409))
    app.exception_handler(ValueError)(said(400))
    app.exception_handler(OSError)(disk)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        ValueError: the address is in use, not of this machine, or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(64)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(
            f"Nothing can be served at {host}, port {port} ({reason}); choose another --port."
        ) from None
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine reaches it."""
    address = listener.getsockname()[0]
    return bool(address == "::1" or address.startswith("127."))


def run_server(folder: Path, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Serve a gallery or a run until it is interrupted; ``ready`` is called when the model is loaded.

    Raises:
        ValueError: there is nothing to serve in ``folder``.
    """
    import uvicorn

    site = Site.open(folder)
    app = create_app(site, hosts=LOOPBACK if is_loopback(listener) else None)
    ready()
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again once it has shut down
        server.run(sockets=[listener])
