"""What a search found as one page without links to anything: pictures are in it."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jinja2

from ..data.errors import DataError
from ..data.images import data_uri, read_image, small_jpeg
from .results import Match, Result
from .tables import unicode_name
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
        gallery=unicode_name(gallery),
        images=images,
        queries=shown,
        hidden=len(results) - len(shown),
        threshold=threshold,
    )
    return text.encode("utf-8")


def _query(result: Result, threshold: Threshold | None) -> dict[str, Any]:
    matches = [_match(match, result, threshold) for match in result.matches]
    return {
        "name": unicode_name(result.path),
        "short": _short(result.path),
        "domain": result.domain.word,
        "picture": thumbnail(result.path),
        "matches": matches,
        "accepted": sum(one["accepted"] is not False for one in matches),
    }


def _match(match: Match, result: Result, threshold: Threshold | None) -> dict[str, Any]:
    limit = None if threshold is None else threshold.of(result.domain, match.domain)
    return {
        "name": unicode_name(match.path),
        "short": _short(match.path),
        "domain": match.domain.word,
        "id": unicode_name(match.id),
        "score": match.score,
        "picture": thumbnail(match.path),
        "limit": limit,
        "accepted": None if limit is None else match.score >= limit,
    }


@functools.lru_cache(maxsize=4 * PICTURES)
def thumbnail(path: str) -> str:
    """The picture as a data URI, its longest side at most `SIDE` pixels; "" if it cannot be read."""
    try:
        return data_uri("image/jpeg", small_jpeg(read_image(path), SIDE, quality=80))
    except DataError:
        return ""


def _short(path: str) -> str:
    return unicode_name("/".join(path.rsplit("/", 2)[-2:]))


def _template() -> jinja2.Template:
    home = jinja2.PackageLoader(__package__, "templates")
    return jinja2.Environment(loader=home, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "matches.html"
    )
