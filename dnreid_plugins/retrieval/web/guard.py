"""What stands before the pages: only this machine's browser and this page's forms come in, and nothing large."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import HTTPException
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from .images import MEGABYTE, MOST_BYTES

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
#: The other fields of a form beside its image.
ROOM = MEGABYTE
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TOO_LARGE = (
    f"The file is larger than {MOST_BYTES // MEGABYTE} MB; choose a smaller one, or cut out the vehicle."
)


class Guard:
    """ASGI middleware: refuses foreign hosts, foreign forms and large bodies; sets the headers of every answer.

    Args:
        app: what is guarded.
        hosts: names under which the page may be asked for; None = any. A foreign page that lets its own name point to
            this machine has another one.
    """

    def __init__(self, app: Any, *, hosts: frozenset[str] | None = LOOPBACK) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def sending(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], scope["scheme"], headers)
        if refusal is not None:
            status, text = refusal
            await PlainTextResponse(text, status)(scope, receive, sending)
            return
        await self.app(scope, _limited(receive), sending)

    def _refusal(self, method: str, scheme: str, headers: Headers) -> tuple[int, str] | None:
        """Status and sentence for a request that is not let in."""
        host = headers.get("host", "")
        if self.hosts is not None and _without_port(host) not in self.hosts:
            return (
                403,
                f"This page is not served under the name {host!r}; open the address that `dnreid serve` says.",
            )
        if method in ("GET", "HEAD"):
            return None
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in (None, "same-origin") or (origin is not None and origin != f"{scheme}://{host}"):
            return 403, "This form was sent by another page, so nothing was done; use the forms of this one."
        if site is None and origin is None:
            return (
                403,
                "The browser does not say which page sent this form, so nothing was done; use another browser.",
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MOST_BYTES + ROOM:
            return 413, TOO_LARGE
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def _limited(receive: Receive) -> Receive:
    """``receive`` that stops at a body of more bytes than were announced or are allowed."""
    seen = 0

    async def limited() -> MutableMapping[str, Any]:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MOST_BYTES + ROOM:
            raise HTTPException(413, TOO_LARGE)
        return message

    return limited
