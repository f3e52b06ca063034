"""What data a run sees: its item list with the sizes of the files, a short name for it, the first difference."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .items import domain_of

THREADS = 16
COLUMNS = ("domain", "identity", "camera", "size", "content")
#: An item is known by the last parts of its path, so that a data set may lie elsewhere.
PATH_PARTS = 3


@dataclass(frozen=True)
class DataDigest:
    """The items of a data set in canonical order.

    Attributes:
        lines: one JSON list per item: path, domain, identity, camera, bytes of the file (-1 without one), and the
            SHA-256 of its bytes where that was asked for, else "".
    """

    lines: tuple[str, ...]

    @classmethod
    def of(cls, items: Iterable[tuple[Any, ...]], *, content: bool = False) -> DataDigest:
        """Look at the files of ``items``: at their sizes, or read them whole (``content``)."""
        items = list(items)
        with ThreadPoolExecutor(THREADS) as pool:
            files = list(pool.map(lambda item: _file(item[0], content=content), items))
        rows = (
            [
                short_path(item[0]),
                domain_of(item).name.lower(),
                *map(str, item[1:3]),
                *file,
            ]
            for item, file in zip(items, files, strict=True)
        )
        return cls(tuple(json.dumps(row) for row in rows))

    @classmethod
    def from_text(cls, text: str) -> DataDigest:
        return cls(tuple(text.splitlines()))

    @property
    def text(self) -> str:
        """Everything, for a checkpoint."""
        return "\n".join(self.lines)

    @property
    def name(self) -> str:
        """Number of items and twelve hex digits of the list; twelve more of the contents where they were read."""
        rows = [json.loads(line) for line in self.lines]
        parts = [str(len(rows)), short_hash(json.dumps([row[:-1] for row in rows]))]
        contents = [row[-1] for row in rows]
        return "-".join([*parts, short_hash("".join(contents))] if any(contents) else parts)

    def difference(self, before: DataDigest) -> str | None:
        """What is first to differ from the list ``before``, in words; None if nothing does.

        Contents are compared where both lists have them.
        """
        old, new = before._by_path(), self._by_path()
        found = [f"{path} is gone" for path in old if path not in new]
        found += [f"{path} is new" for path in new if path not in old]
        for path in old.keys() & new.keys() if not found else ():
            pairs = zip(COLUMNS, old[path], new[path], strict=True)
            changed = [(c, a, b) for c, a, b in pairs if a != b and not (c == "content" and "" in (a, b))]
            found += [f"{path} has {c} {b} in place of {a}" for c, a, b in changed[:1]]
        if not found and list(old) != list(new):
            found = [f"the order is another one from {next(a for a, b in zip(old, new) if a != b)} on"]
        if not found:
            return None
        first = min(found) if len(found) > 1 else found[0]
        return f"{first} ({len(found)} differences; {len(new)} images now, {len(old)} then)"

    def _by_path(self) -> dict[str, list[Any]]:
        rows = [json.loads(line) for line in self.lines]
        names: dict[str, int] = {}
        for row in rows:  # two data sets may have files of one name
            names[row[0]] = number = names.get(row[0], 0) + 1
            row[0] += f" #{number}" if number > 1 else ""
        return {row[0]: row[1:] for row in rows}


def _file(path: str, *, content: bool) -> tuple[int, str]:
    try:
        if content:
            data = Path(path).read_bytes()
            return len(data), hashlib.sha256(data).hexdigest()[:16]
        return os.stat(path).st_size, ""
    except OSError:
        return -1, ""


def short_path(path: str) -> str:
    """The last parts of ``path``, by which an item is known."""
    return "/".join(Path(path).parts[-PATH_PARTS:])


def short_hash(text: str) -> str:
    """Twelve hex digits that name a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
