"""What a search found as one page without links to anything: pictures are in it."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from typing import Any

import jinja2

from ..data.errors import DataError
from ..data.images import read_image
from .results import Match, Result
from .threshold import Threshold

#: Pictures on a page, and the longest side of one in pixels.
PICTURES, SIDE = 1000, 144


def as_page(results: Sequence[Result], threshold: Threshold | None, *, gallery: str, images: int) -> bytes:
    """HTML in UTF-8: each query with its matches, those below the threshold greyed; at most `PICTURES` of them.

    Args:
        gallery: its name.
        images: how many it holds.
    """
    shown: list[dict[str, Any]] = []
    pictures = 0
    for result in results:
        pictures += 1 + len(result.matches)
        if shown and pictures > PICTURES:
            break
        shown.append(_query(result, threshold))
    text = _template().render(
        gallery=_text(gallery),
        images=images,
        queries=shown,
        hidden=len(results) - len(shown),
        threshold=threshold,
    )
    return text.encode("utf-8")


def _query(result: Result, threshold: Threshold | None) -> dict[str, Any]:
    matches = [_match(match, result, threshold) for match in result.matches]
    return {
        "name": _text(result.path),
        "short": _short(result.path),
        "domain": result.domain.word,
        "picture": thumbnail(result.path),
        "matches": matches,
        "accepted": sum(one["accepted"] is not False for one in matches),
    }


def _match(match: Match, result: Result, threshold: Threshold | None) -> dict[str, Any]:
    limit = None if threshold is None else threshold.of(result.domain, match.domain)
    return {
        "name": _text(match.path),
        "short": _short(match.path),
        "domain": match.domain.word,
        "id": _text(match.id),
        "score": match.score,
        "picture": thumbnail(match.path),
        "limit": limit,
        "accepted": None if limit is None else match.score >= limit,
    }


@functools.lru_cache(maxsize=4 * PICTURES)
def thumbnail(path: str) -> str:
    """The picture as a data URI, its longest side at most `SIDE` pixels; "" if it cannot be read."""
    try:
        image = read_image(path)
    except DataError:
        return ""
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _text(name: str) -> str:
    """A file name that may hold bytes that are no text."""
    return name.encode("utf-8", "replace").decode()


def _short(path: str) -> str:
    return _text("/".join(path.rsplit("/", 2)[-2:]))


def _template() -> jinja2.Template:
    home = jinja2.PackageLoader(__package__, "templates")
    return jinja2.Environment(loader=home, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "matches.html"
    )
