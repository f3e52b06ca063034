"""Tables of images: CSV files whose first line names the columns."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

from ..functional.types import Domain
from .errors import DataError

#: In any case.
WORDS = {
    Domain.DAY: ("day", "visible", "rgb", "0"),
    Domain.NIGHT: ("night", "infrared", "thermal", "ir", "1"),
}
#: Characters of a field that a message shows.
_SHOWN = 40


def read_table(path: Path, *, needed: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """``(line number, {column: field})`` of the rows of a CSV file in UTF-8; blank lines are left out.

    Fields are separated by commas, semicolons or tabs, whichever the first line has most of. Columns are in lower
    case; white space around a field is no part of it.

    Raises:
        DataError: it is not there, not text, has no row, or lacks a column or a needed field.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if "\0" in text:
            raise csv.Error("it has a NUL byte")
        heading = text.partition("\n")[0]
        lines = io.StringIO(text, newline="")
        reader = csv.reader(lines, delimiter=max(",;\t", key=heading.count), strict=True)
        header = [name.strip().lower() for name in next(reader, [])]
        rows = [
            (reader.line_num, dict(zip(header, (field.strip() for field in fields))))
            for fields in reader
            if any(field.strip() for field in fields)
        ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = "no UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        reason = getattr(error, "strerror", None) or reason
        raise DataError(f"table {str(path)!r} cannot be read ({reason}); correct it") from None
    lacking = [name for name in needed if name not in header]
    twice = [name for name in header if header.count(name) > 1]
    if lacking or twice or not rows:
        what = (
            f"has no column {lacking[0]!r}"
            if lacking
            else f"has two columns {twice[0]!r}"
            if twice
            else "has no row"
        )
        raise DataError(f"table {str(path)!r} {what}; its first line names {', '.join(needed)}")
    for number, row in rows:
        empty = next((name for name in needed if not row.get(name)), None)
        if empty is not None:
            raise DataError(f"table {str(path)!r}, line {number}: no {empty}; write one or remove the line")
    return rows


def domain_word(name: str, table: Path, line: int) -> str | None:
    """``"day"`` or ``"night"`` from the field of a table; None where it is empty.

    Raises:
        DataError: it is another word.
    """
    if not name:
        return None
    for domain, words in WORDS.items():
        if name.lower() in words:
            return domain.word
    raise DataError(
        f"table {str(table)!r}, line {line}: the domain is {name[:_SHOWN]!r}; write day, night, visible or infrared"
    )


def beside(table: Path, path: str) -> str:
    """``path`` of a table, relative to its folder."""
    return os.path.join(table.parent, os.path.expanduser(path))
