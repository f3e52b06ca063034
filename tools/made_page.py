"""What the tools share that make pages, or parts of pages, from code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The pages are about this source tree, wherever a package of the name may be installed.
sys.path.insert(0, str(ROOT))


def write_or_check(
    page: Path, make: Callable[[], str], about: str | None, argv: Sequence[str] | None = None
) -> int:
    """The command line of such a tool: write ``page``, or with ``--check`` only compare; returns the exit code."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail when the page is not up to date")
    check = parser.parse_args(argv).check
    text, name = make(), page.relative_to(ROOT)
    if check:
        same = page.is_file() and page.read_text(encoding="utf-8") == text
        print(f"{name} is {'up to date' if same else 'not up to date; run make docs'}")
        return 0 if same else 1
    page.write_text(text, encoding="utf-8")
    print(f"{name} written")
    return 0


def replace_part(document: str, name: str, content: str) -> str:
    """``document`` with ``content`` between its markers ``<!-- name begin -->`` and ``<!-- name end -->``.

    Raises:
        ValueError: they are not there once each, in order.
    """
    begin_mark, end_mark = f"<!-- {name} begin -->", f"<!-- {name} end -->"
    before, begin, rest = document.partition(begin_mark)
    _, end, after = rest.partition(end_mark)
    if not begin or not end or begin_mark in after or end_mark in after:
        raise ValueError(f"The document needs one {begin_mark} and after it one {end_mark}; put them back.")
    return f"{before}{begin_mark}\n{content}{end_mark}{after}"


def cell(text: str) -> str:
    """``text`` as it may stand in a table of markdown."""
    return text.replace("|", "\\|").replace("\n", " ")
