"""Templates to bytes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ...runtime import VERSION

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **content: Any) -> bytes:
    """The page as UTF-8; every value is escaped, and what is no valid text is shown as it is printed."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "change": change}
    text = environment.get_template(template).render(version=VERSION, **content)
    return text.encode("utf-8", "backslashreplace")


def percent(value: float | None) -> str:
    """Two digits; a dash where there is no number."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}"


def change(value: float) -> str:
    """A difference with its sign."""
    return f"{value:+.2f}".replace("-", "−")
