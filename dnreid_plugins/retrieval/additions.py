"""What adding images to a gallery does: new ones, changed ones, those that are there already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..data.errors import DataError
from ..data.images import open_regular
from ..functional.types import Domain
from ..runtime.files import hash_of
from .store import Entry

THREADS = 8


@dataclass(frozen=True)
class Addition:
    """A plan: ``kept`` rows of the old gallery with their entries, then ``new`` ones.

    Attributes:
        unchanged: images that were there with the same bytes and domain; they keep their features.
        replaced: images that were there with other bytes or in the other domain.
        copies: new images whose bytes are also those of another path; both stay.
    """

    kept: NDArray[np.int64]
    kept_entries: list[Entry]
    new: list[Entry]
    keeps_all: bool
    unchanged: int = 0
    replaced: int = 0
    copies: int = 0


def plan(old: Sequence[Entry], added: Sequence[Entry]) -> Addition:
    """An image is known by its path.

    One with the same bytes and domain as before keeps its features, but gets the identity that is given now. One that
    changed is embedded anew and its old row is dropped. A copy under another path is an image of its own.
    """
    chosen = {entry.path: entry for entry in added}  # of a path that comes twice the last counts
    rows, kept, unchanged = [], [], 0
    for row, entry in enumerate(old):
        other = chosen.get(entry.path)
        if other is None:
            rows.append(row)
            kept.append(entry)
        elif (other.content, other.domain) == (entry.content, entry.domain):
            rows.append(row)
            kept.append(other if other.id else entry)
            unchanged += 1
            del chosen[entry.path]
    new = list(chosen.values())
    return Addition(
        kept=np.array(rows, dtype=np.int64),
        kept_entries=kept,
        new=new,
        keeps_all=len(kept) == len(old),
        unchanged=unchanged,
        replaced=len(old) - len(kept),
        copies=_copies([*kept, *new]) - _copies(kept),
    )


def _copies(entries: Sequence[Entry]) -> int:
    return len(entries) - len({entry.content for entry in entries})


def entries_of(
    images: Sequence[str | Path], domains: Sequence[int], ids: Sequence[str] | None = None
) -> list[Entry]:
    """Entries with absolute paths and the hash of each file; every file is read once.

    Raises:
        DataError: a file cannot be read.
        ValueError: another number of ids than of images.
    """
    names = [""] * len(images) if ids is None else list(ids)
    if len(names) != len(images):
        raise ValueError(f"There are {len(names)} ids for {len(images)} images; give one each.")
    paths = [os.path.abspath(image) for image in images]
    with ThreadPoolExecutor(THREADS) as pool:
        contents = list(pool.map(content_of, paths))
    return [
        Entry(path, Domain(domain), name, content)
        for path, domain, name, content in zip(paths, domains, names, contents)
    ]


def content_of(path: str) -> str:
    """32 hex digits of the bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hash_of(file, hashlib.blake2b(digest_size=16))
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"image {path!r} cannot be read ({reason}); correct its path or leave it out"
        ) from None
