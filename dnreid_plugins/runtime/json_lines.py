"""Files of one JSON object per line that a resumed run continues."""

from __future__ import annotations

import json
from pathlib import Path


def drop_rows(path: Path, key: str, first: float) -> int:
    """Remove the rows whose ``key`` is at least ``first``, and a last row that a kill left unfinished.

    Rows without ``key`` stay. The file is truncated in place, since a writer may hold it open. Returns how
    many rows were removed; nothing happens if there is no file.
    """
    if not path.is_file():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    stays = [_stays(line, key, first) for line in lines]
    if all(stays):
        return 0
    unchanged = stays.index(False)
    with path.open("r+b") as file:
        file.seek(sum(len(line) for line in lines[:unchanged]))
        file.write(b"".join(line for line, good in zip(lines, stays) if good)[file.tell() :])
        file.truncate()
    return stays.count(False)


def _stays(line: bytes, key: str, first: float) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        row = json.loads(line)
    except ValueError:
        return False
    value = row.get(key) if isinstance(row, dict) else None
    return not isinstance(value, (int, float)) or value < first
