"""Write a gallery of any number of images to a folder, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from . import backends, store
from .additions import Addition, plan
from .backends import Kind
from .index import Index
from .writer import write_rows

if TYPE_CHECKING:
    from .matcher import Matcher


def write_gallery(
    folder: str | Path,
    matcher: Matcher,
    entries: Sequence[store.Entry],
    *,
    kind: Kind = "flat",
    add: bool = False,
    skip_bad: bool = False,
) -> Addition:
    """Embed ``entries`` and write them to ``folder``; features of one block at a time are in memory.

    Args:
        kind: with ``add`` that of the gallery stays.
        add: to the gallery that is there, which must be of this model; else it is replaced.
        skip_bad: leave images out that cannot be read.

    Raises:
        ValueError: ``folder`` is no gallery, is of another model, or is being written by somebody else.
        DataError: an image cannot be read.
        OSError: it cannot be written; then the gallery is as it was.
    """
    with store.writing(folder) as path:
        old = Index.load(path, matcher) if add and store.is_gallery(path) else None
        if old is None:
            old = Index.empty(matcher, kind=kind)
        old.run = matcher.run or old.run
        what = plan(old.entries, entries)
        every = [*what.kept_entries, *what.new]
        write_rows(
            path, every, _blocks(matcher, old, what, skip_bad=skip_bad), like=old, grown=what.keeps_all
        )
    return what


def _blocks(matcher: Matcher, old: Index, what: Addition, *, skip_bad: bool) -> Iterator[Any]:
    for start in range(0, len(what.kept), backends.BLOCK):
        rows = what.kept[start : start + backends.BLOCK]
        yield np.arange(start, start + len(rows)), old.features[rows]
    paths, domains = [one.path for one in what.new], [int(one.domain) for one in what.new]
    for places, features in matcher.blocks(paths, domains, skip_bad=skip_bad):
        yield len(what.kept) + places, features
