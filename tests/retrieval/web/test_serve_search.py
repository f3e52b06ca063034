"""The search on the page: every route, and everything that may come as an image, a number or a name."""

from __future__ import annotations

import io
import re
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from serve_world import HOST, NAMES, SENT, client
from starlette.testclient import TestClient

from dnreid_plugins.functional.types import Domain
from dnreid_plugins.retrieval.threshold import Direction, Threshold
from dnreid_plugins.retrieval.web.guard import HEADERS
from dnreid_plugins.retrieval.web.images import MOST_BYTES, file_copy, placeholder
from dnreid_plugins.retrieval.web.site import Site

COUNT = 2 * len(NAMES)


def sent(page: TestClient, content: bytes, *, domain: str = "day", name: str = "x.png", **more: Any) -> Any:
    return page.post(
        "/search", files={"image": (name, content)}, data={"domain": domain}, headers=SENT, **more
    )


def rows(text: str) -> list[int]:
    """The images that a page shows as matches."""
    return [int(number) for number in re.findall(r'href="/search\?image=(\d+)', text)]


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_every_answer_has_the_headers_and_its_type(page: TestClient) -> None:
    html, kinds = "text/html; charset=utf-8", {}
    kinds |= dict.fromkeys(
        ("/", "/?show=night&page=2", "/search?image=0", "/clusters", "/clusters/day/0"), html
    )
    kinds |= dict.fromkeys(("/picture/gallery/0/small", "/picture/clusters/17/large"), "image/jpeg")
    kinds |= {
        "/static/site.css": "text/css; charset=utf-8",
        "/static/site.js": "text/javascript; charset=utf-8",
    }
    kinds |= {"/labels.csv": "text/csv; charset=utf-8"}
    for path, kind in kinds.items():
        answer = page.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind), path
        assert HEADERS.items() <= {
            key.title(): value for key, value in answer.headers.items()
        }.items() or all(answer.headers[name] == value for name, value in HEADERS.items())
    for path in ("/nothing", "/search?image=0&k=0", "/picture/gallery/x/small"):
        answer = page.get(path)
        assert answer.status_code in (400, 404) and answer.headers["content-type"] == html
        assert answer.headers["content-security-policy"] == HEADERS["Content-Security-Policy"]
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]


def test_an_upload_finds_its_own_copy_and_the_domain_is_a_filter(page: TestClient, site: Site) -> None:
    index = site.search.index
    content = Path(index.paths[1]).read_bytes()
    answer = sent(page, content, name=NAMES[3])
    assert answer.status_code == 303
    place = answer.headers["location"]
    domains = {
        among: [int(index.domains[row]) for row in rows(page.get(f"{place}&among={among}").text)]
        for among in ("other", "night", "day", "both")
    }
    assert domains["other"] == domains["night"] == [1] * len(NAMES) and domains["day"] == [0] * len(NAMES)
    assert sorted(domains["both"]) == [0] * len(NAMES) + [1] * len(NAMES)
    same = page.get(f"{place}&among=both&k=1").text
    assert rows(same) == [1] and "<b>1.000</b>" in same
    assert page.get(f"/query/{place.partition('query=')[2]}").headers["content-type"] == "image/jpeg"
    # The same picture as one of the night goes through the other stream.
    other = sent(page, content, domain="night").headers["location"]
    assert "<b>1.000</b>" not in page.get(f"{other}&among=both&k=1").text


def test_an_image_of_the_gallery_is_no_match_of_itself(page: TestClient, site: Site) -> None:
    found = rows(page.get("/search?image=4&among=both&k=200").text)
    assert sorted(found) == [row for row in range(COUNT) if row != 4]
    feature = site.search.index.features[4:5]
    _, expected = site.search.index.search(feature, 3, domain="night")
    assert rows(page.get("/search?image=4&k=3").text) == expected[0].tolist()


def test_matches_below_the_threshold_are_marked(world: Path, site: Site, page: TestClient) -> None:
    scores = [one.score for one in site.search.matches(site.search.of_row(0), 9, Domain.NIGHT)]
    value = (scores[3] + scores[4]) / 2
    main = Direction(value, 0.001, (0.0005, 0.002), 0.9, 10, 100)
    Threshold(site.search.index.fingerprint, 0.001, {"across": main}).save(world / "run")
    text = client(world / "gallery").get("/search?image=0&k=9").text
    (world / "run" / "threshold.json").unlink()
    assert text.count('class="above"') == 4 and text.count('class="below"') == 5
    assert (
        f"{value:.3f} on across day and night (wrong for 0.1 % of different vehicles, 0.05 % to 0.2 %)"
        in text
    )
    text = page.get("/search?image=0&k=9").text
    assert "No threshold is known" in text and 'class="below"' not in text


GOOD = Image.effect_noise((40, 30), 60)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("grey.png", encoded(GOOD, "PNG")),
        ("cmyk.jpg", encoded(GOOD.convert("CMYK"), "JPEG")),
        ("sixteen.png", encoded(GOOD.convert("I;16"), "PNG")),
        ("palette.gif", encoded(GOOD.convert("P"), "GIF")),
        ("animated.gif", encoded(GOOD, "GIF", save_all=True, append_images=[GOOD.rotate(90)] * 3)),
        ("alpha.webp", encoded(GOOD.convert("RGBA"), "WEBP")),
        ("one.bmp", encoded(GOOD.convert("1"), "BMP")),
        ("tiny.png", encoded(Image.new("RGB", (1, 1)), "PNG")),
        ("no name at all", encoded(GOOD, "PNG")),
    ],
)
def test_any_kind_of_image_is_taken(page: TestClient, name: str, content: bytes) -> None:
    answer = sent(page, content, name=name)
    assert answer.status_code == 303, answer.text
    assert page.get(answer.headers["location"]).status_code == 200


def test_a_rotated_image_is_turned(page: TestClient, site: Site) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = Image.open(site.search.index.paths[0]).convert("RGB")
    lying = encoded(upright.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    place = sent(page, lying).headers["location"]
    assert "<b>1.000</b>" in page.get(f"{place}&among=day&k=1").text


BOMB = encoded(Image.new("1", (9000, 9000)), "PNG")
FAR_LARGER = encoded(Image.new("1", (20000, 20000)), "PNG")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "There is no image in the form"),
        (b"hello", "This file cannot be used as an image (it is no image of a known kind)"),
        (encoded(GOOD, "PNG")[:200], "This file cannot be used as an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", "cannot be used as an image"),
        (BOMB, "This image has 9000 x 9000 pixels; at most 50 million are taken"),
        (FAR_LARGER, "This image has far too many pixels"),
    ],
)
def test_a_bad_upload_is_answered_with_a_sentence(page: TestClient, content: bytes, sentence: str) -> None:
    answer = sent(page, content)
    assert answer.status_code == 400 and sentence in answer.text


def test_forms_with_wrong_fields_are_answered_with_a_sentence(page: TestClient) -> None:
    assert sent(page, b"x", domain="dusk").status_code == 400
    answer = page.post("/search", data={"domain": "day"}, headers=SENT)
    assert answer.status_code == 400 and "The value of image is missing" in answer.text
    answer = page.post(
        "/search", content=b"--x\r\nno", headers={**SENT, "content-type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 400
    for query in (
        "k=0",
        "k=201",
        "k=x",
        "among=dusk",
        "image=-1",
        "image=99999999999999999999",
        "query=never",
    ):
        text = f"/search?image=0&{query}" if not query.startswith(("image", "query")) else f"/search?{query}"
        answer = page.get(text)
        assert answer.status_code in (400, 404) and 'class="card sentence"' in answer.text
    assert page.get("/?page=0").status_code == 400 and page.get("/?page=999999").status_code == 200


def test_a_large_upload_is_refused_announced_or_not(page: TestClient) -> None:
    answer = sent(page, bytes(MOST_BYTES + (1 << 20) + 1))
    assert answer.status_code == 413 and "larger than 20 MB" in answer.text

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        for _ in range(MOST_BYTES // (1 << 20) + 2):
            yield bytes(1 << 20)

    headers = {**SENT, "content-type": "multipart/form-data; boundary=b"}
    answer = page.post("/search", content=body(), headers=headers)
    assert answer.status_code == 413 and "larger than 20 MB" in answer.text
    assert sent(page, encoded(GOOD, "PNG")).status_code == 303


class Tags(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_names_of_files_are_never_markup(page: TestClient) -> None:
    place = sent(page, encoded(GOOD, "PNG"), name='"><script>alert(3)<.png').headers["location"]
    paths = ("/", "/search?image=3&among=both", f"{place}&among=both", "/clusters/day/1")
    texts = [page.get(path).text for path in paths]
    for text in texts:
        tags = Tags(text).found
        assert [attrs for tag, attrs in tags if tag == "script"] == [
            {"src": "/static/site.js", "defer": None}
        ]
        assert not [key for _, attrs in tags for key in attrs if key.startswith("on") or key == "style"]
        addresses = [attrs[key] for _, attrs in tags for key in ("src", "href", "action") if key in attrs]
        assert all(one.startswith(("/", "data:,")) and not one.startswith("//") for one in addresses if one)
    shown = {attrs.get("alt") for text in texts for tag, attrs in Tags(text).found if tag == "img"}
    assert {f"day/{n // 3}/{name}" for n, name in enumerate(NAMES[:-1])} <= shown
    assert "day/2/?.png" in shown and "49" not in "".join(filter(None, shown))
    assert "&lt;script&gt;alert(3)" in texts[2]


@pytest.mark.parametrize(
    "path",
    [
        "/picture/gallery/99/small",
        "/picture/gallery/-1/small",
        "/picture/gallery/1e3/small",
        "/picture/gallery/..%2f..%2fetc%2fpasswd/small",
        "/picture/gallery/%2fetc%2fpasswd/small",
        "/picture/../static/site.py/small",
        "/picture/run/0/small",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static//etc/passwd",
        "/query/..%2f..%2fetc%2fpasswd",
        "/templates/base.html",
        "/docs",
        "/openapi.json",
    ],
)
def test_nothing_outside_the_gallery_can_be_asked_for(page: TestClient, path: str) -> None:
    answer = page.get(path)
    assert answer.status_code in (400, 404) and "root:" not in answer.text and "import" not in answer.text


def test_an_image_that_is_gone_or_damaged_is_a_placeholder(copied: Path) -> None:
    page, index = client(copied / "gallery"), Site.open(copied / "gallery").search.index
    assert index.paths[0].startswith(str(copied))
    Path(index.paths[0]).unlink()
    Path(index.paths[1]).write_bytes(b"no image")
    file_copy.cache_clear()
    for number in (0, 1):
        answer = page.get(f"/picture/gallery/{number}/small")
        assert (answer.status_code, answer.content) == (200, placeholder())
        assert page.get(f"/search?image={number}").status_code == 200
    assert page.get("/picture/gallery/2/small").content != placeholder()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": HOST, "sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
    ],
)
def test_a_form_of_another_page_does_nothing(page: TestClient, world: Path, headers: dict[str, str]) -> None:
    answer = page.post(
        "/correct/confirm", data={"revision": 0, "domain": "day", "number": 0}, headers=headers
    )
    assert answer.status_code == 403 and not (world / "run" / "corrections.jsonl").exists()
    assert (
        page.post(
            "/search", files={"image": encoded(GOOD, "PNG")}, data={"domain": "day"}, headers=headers
        ).status_code
        == 403
    )


def test_a_name_that_points_here_from_elsewhere_is_refused(page: TestClient) -> None:
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        assert page.get("/", headers={"host": host}).status_code == 403
    for host in ("127.0.0.1:1", "localhost:8000", "LOCALHOST", "[::1]:8000", "[::1]"):
        assert page.get("/", headers={"host": host}).status_code == 200


def test_requests_use_the_model_one_after_the_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, most = 0, 0
    embed = site.search.matcher.embed

    def counted(*args: Any) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.02)
        inside -= 1
        return embed(*args)

    monkeypatch.setattr(site.search.matcher, "embed", counted)
    work = [
        threading.Thread(target=site.search.remember, args=("x", GOOD.convert("RGB"), Domain.DAY))
        for _ in range(4)
    ]
    for one in work:
        one.start()
    for one in work:
        one.join()
    assert most == 1


def test_uploads_are_not_remembered_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dnreid_plugins.retrieval.web.site.REMEMBERED", 2)
    tokens = [site.search.remember("x", GOOD.convert("RGB"), Domain.DAY) for _ in range(3)]
    assert site.search.recall(tokens[0]) is None and site.search.recall(tokens[2]) is not None
