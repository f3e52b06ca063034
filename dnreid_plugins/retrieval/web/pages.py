"""From templates to answers: everything that is shown of files is escaped, whatever their names are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...data.digest import short_path
from .site import Site

T = TypeVar("T")
HERE = Path(__file__).resolve().parent
STATIC = HERE / "static"


@dataclass(frozen=True)
class Page:
    """One page of a long list, from 1.

    Attributes:
        number: of this page.
        last: number of the last one.
        items: on it.
    """

    number: int
    last: int
    items: Sequence[Any]

    @classmethod
    def of(cls, items: Sequence[T], number: int, size: int) -> Page:
        """The page ``number``, or the last one where there are fewer."""
        last = max(-(-len(items) // size), 1)
        number = min(number, last)
        return cls(number, last, items[(number - 1) * size : number * size])


class Pages:
    """The templates, rendered for a `Site`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters.update(short=short, percent=percent)

    def __call__(self, template: str, *, status: int = 200, **content: Any) -> HTMLResponse:
        """The template with ``content``; file names that are no valid text are shown with replacement characters."""
        text = self.templates.get_template(template).render(site=self.site, **content)
        return HTMLResponse(text.encode("utf-8", "replace"), status)

    def sentence(self, text: str, status: int) -> HTMLResponse:
        """A page that says ``text`` and nothing else."""
        return self("sentence.html", status=status, text=text)


def short(path: str) -> str:
    """The last parts of a path, by which an image is known."""
    return short_path(path) if len(PurePath(path).parts) > 3 else path


def percent(share: float) -> str:
    return f"{100 * share:.2g} %"
