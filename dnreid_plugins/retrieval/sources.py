"""The images that a command is given: files, folders and tables."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..data.datasets.files import IMAGE_SUFFIXES, list_images
from ..data.errors import DataError
from ..data.readable import unreadable
from ..data.tables import beside, domain_word, read_table
from ..functional.types import Domain
from .additions import entries_of
from .store import Entry

TABLE = ".csv"


def collect(
    sources: Sequence[str], domain: str | int | None, *, folder_ids: bool = False, skip_bad: bool = False
) -> list[Entry]:
    """Every image of ``sources``, in their order; each file is read, and one that comes twice counts once.

    Args:
        sources: image files; folders, searched with their sub-folders; tables (.csv) with the columns ``path``
            (relative to the table) and, if they are known, ``domain`` and ``id``.
        domain: of all images for which a table says none.
        folder_ids: an image ``<folder>/<id>/...`` has the identity ``<id>``.
        skip_bad: leave images out that cannot be read; the log lists them.

    Raises:
        DataError: a source is not there or holds no image, a table is wrong, or an image cannot be read.
        ValueError: an image without a domain.
    """
    rows: list[tuple[str, str | int | None, str]] = []
    for source in sources:
        if os.path.isdir(source):
            found = list_images(Path(source))
            rows += [(path, domain, _folder_id(path, source) if folder_ids else "") for path in found]
        elif source.lower().endswith(TABLE):
            rows += [(path, own or domain, name) for path, own, name in _table(Path(source))]
        elif os.path.splitext(source)[1].lower() in IMAGE_SUFFIXES or os.path.isfile(source):
            rows.append((source, domain, ""))
        else:
            raise DataError(f"{source!r} is no folder, table (.csv) or image; correct the path")
        if not rows:
            raise DataError(
                f"{source!r} holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}); correct the path"
            )
    return _entries(rows, skip_bad=skip_bad)


def _entries(rows: list[tuple[str, str | int | None, str]], *, skip_bad: bool) -> list[Entry]:
    lacking = next((path for path, domain, _ in rows if domain is None), None)
    if lacking is not None:
        raise ValueError(
            f"Nothing says whether {lacking!r} is a day or a night image; give --domain day or night."
        )
    known = {os.path.abspath(path): (domain, name) for path, domain, name in rows}
    bad = unreadable(list(known), "images")
    if bad and not skip_bad:
        first = ", ".join(map(repr, list(bad)[:5]))
        raise DataError(
            f"{len(bad)} of {len(known)} images cannot be read, the first: {first}; replace them, or leave them out "
            "with --skip-bad"
        )
    paths = [path for path in known if path not in bad]
    if not paths:
        raise DataError(f"None of the {len(known)} images can be read; give others")
    domains = [int(Domain.named(known[path][0] or 0)) for path in paths]
    return entries_of(paths, domains, [known[path][1] for path in paths])


def _folder_id(path: str, folder: str) -> str:
    parts = Path(os.path.relpath(path, folder)).parts
    return parts[0] if len(parts) > 1 else ""


def _table(path: Path) -> list[tuple[str, str | None, str]]:
    rows = []
    for number, row in read_table(path, needed=("path",)):
        name = domain_word(row.get("domain", ""), path, number)
        rows.append((beside(path, row["path"]), name, row.get("id", "")))
    return rows
