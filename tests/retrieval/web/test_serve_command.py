"""`dnreid serve`: what it refuses and warns of, and that it is on this machine alone unless told otherwise."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from serve_world import HOST
from starlette.testclient import TestClient

from dnreid_plugins.commands.serve import serve
from dnreid_plugins.retrieval.web import app
from dnreid_plugins.retrieval.web.app import create_app, is_loopback, listen
from dnreid_plugins.retrieval.web.site import Site


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, bool]]:
    """What would be served, and whether to this machine alone."""
    seen: list[tuple[Path, bool]] = []

    def run(folder: Path, listener: socket.socket, ready: Any) -> None:
        seen.append((folder, is_loopback(listener)))
        ready()

    monkeypatch.setattr(app, "run_server", run)
    return seen


def test_the_address_is_said_and_is_of_this_machine(
    served: list[tuple[Path, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    serve(Path("g"), port=0)
    said = capsys.readouterr()
    assert served == [(Path("g"), True)] and said.err == ""
    assert said.out.startswith("http://127.0.0.1:") and ":0 " not in said.out


def test_another_address_is_warned_of(
    served: list[tuple[Path, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    serve(Path("g"), port=0, host="0.0.0.0")
    assert served == [(Path("g"), False)]
    assert (
        "warning: everybody who reaches 0.0.0.0, without a password, sees the images"
        in capsys.readouterr().err
    )


def test_a_port_in_use_and_nonsense_are_refused() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=rf"127\.0\.0\.1, port {port} \(Address already in use\)"):
            serve(Path("g"), port=port)
    for host, port in (("127.0.0.1", 70000), ("no.such.host.invalid", 0), ("192.0.2.1", 0)):
        with pytest.raises(ValueError, match="Nothing can be served at"):
            listen(host, port)


def test_no_server_starts_without_something_to_serve(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is neither a gallery nor a run"):
        serve(tmp_path, port=0)


def test_with_an_open_address_any_name_is_answered(site: Site) -> None:
    page = TestClient(create_app(site, hosts=None), base_url=HOST)
    assert page.get("/", headers={"host": "camera-server.example:8000"}).status_code == 200
    answer = page.post("/correct/undo", data={"revision": 0}, headers={"origin": "http://evil.example"})
    assert answer.status_code == 403
