"""The page in a real browser: drop an image, search, filter, correct a cluster; no error, and nothing leaves here."""

from __future__ import annotations

import base64
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve_world import NAMES

from dnreid_plugins.retrieval.web.app import listen, run_server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 120_000  # milliseconds: a busy machine may need long for a page, and nothing here is about speed
DROP = """([selector, name, content]) => {
    const bytes = Uint8Array.from(atob(content), (one) => one.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name, {type: "image/png"}));
    const target = document.querySelector(selector);
    for (const kind of ["dragenter", "dragover", "drop"])
        target.dispatchEvent(new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""


@pytest.fixture
def address(world: Path) -> str:
    """A server of its own, as `dnreid serve --port 0` starts it."""
    listener, ready = listen("127.0.0.1", 0), threading.Event()
    threading.Thread(target=run_server, args=(world / "gallery", listener, ready.set), daemon=True).start()
    assert ready.wait(300)
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed here, so the page cannot be tried in a browser")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as play:
        # Other tests may fill the shared memory, and a page without room in it crashes.
        chromium = play.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield chromium
        chromium.close()


@pytest.mark.slow
def test_search_and_correct_in_a_browser(browser: Any, address: str, world: Path) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    expect.set_options(timeout=PATIENCE)
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.set_default_timeout(PATIENCE)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: asked.append(request.url))

    page.goto(address)
    content = base64.b64encode((world / "images" / "night" / "1" / NAMES[3]).read_bytes()).decode()
    page.evaluate(DROP, [".drop", "<img src=x onerror=alert(4)>.png", content])
    page.get_by_role("radio", name="at night").check()
    page.get_by_role("button", name="Search").click()
    page.wait_for_url("**/search?query=*")
    expect(page.locator(".matches li")).to_have_count(len(NAMES))
    expect(page.locator(".matches .badge.day")).to_have_count(len(NAMES))
    expect(page.locator(".name")).to_contain_text("onerror")
    page.get_by_role("radio", name="both").check()
    page.wait_for_url("**among=both*")
    expect(page.locator(".matches b").first).to_have_text("1.000")
    page.locator("input[name=k]").fill("5")
    page.wait_for_url("**k=5*")
    expect(page.locator(".matches li")).to_have_count(5)
    page.wait_for_function("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")

    page.get_by_role("link", name="Clusters").click()
    page.get_by_role("link", name="day 1").click()
    page.locator("input[name=images]").first.check()
    page.get_by_role("button", name="Remove").click()
    expect(page.locator("input[name=images]")).to_have_count(2)  # waits for the next page, as those below
    expect(page.locator(".undo")).to_contain_text("remove")
    page.get_by_role("button", name="The same vehicle").click()
    expect(page.locator("h2")).to_contain_text("by you")
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".undo")).to_contain_text("remove 1 of day 1")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export labels.csv").click()
    assert download.value.suggested_filename == "labels.csv"
    wide = "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    for width in (390, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        for path in ("/", "/search?image=3", "/clusters", "/clusters/day/0", "/clusters?beside=day-0"):
            page.goto(address + path)
            assert page.evaluate(wide), f"{path} is wider than {width} pixels"

    assert said == []
    assert asked and all(one.startswith((address, "data:")) for one in asked)
