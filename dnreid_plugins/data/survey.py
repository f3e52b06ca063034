"""Look at every image of a data set before anything is trained: size, type, damage, and who is a copy of whom."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median

import numpy as np
from PIL import Image

from ..functional.types import Domain
from ..runtime.files import hash_of
from .images import open_image, open_regular
from .items import DomainItem, domain_of
from .protocols import ImageLabels, Protocol
from .readable import problem_of

THREADS = 16
_CHUNK = 64
#: EXIF's orientation, and those that swap width and height; only in these formats it stands before the pixels.
_ORIENTATION, _LYING, _WITH_EXIF = 274, (5, 6, 7, 8), ("JPEG", "MPO", "TIFF")
#: Queries whose removed images are counted at once.
_QUERIES = 256


@dataclass(frozen=True)
class ImageFacts:
    """What one file is.

    Attributes:
        path: of the file.
        problem: why it cannot be used, "" if it can.
        size: width and height in pixels as it is seen, (0, 0) with a problem.
        kind: format and colour mode by Pillow's names, such as ``"JPEG RGB"``; "" with a problem.
        content: 16 hex digits of the SHA-256 of its bytes; "" where they cannot be read.
    """

    path: str
    problem: str
    size: tuple[int, int]
    kind: str
    content: str


@dataclass(frozen=True)
class DomainSummary:
    """The readable images of a domain; ``width`` and ``height`` are (min, median, max) in pixels, zeros for none."""

    images: int
    width: tuple[int, int, int]
    height: tuple[int, int, int]
    kinds: dict[str, int]
    identities: int
    cameras: dict[str, int]


def look_at(path: str) -> ImageFacts:
    """Read one file: its bytes once for the hash, its header, its pixels only where the header does not do."""
    content = ""
    try:
        with open_regular(path) as file:
            content = hash_of(file, hashlib.sha256())[:16]
            file.seek(0)
            image = open_image(file)
            size, kind = _upright_size(image), f"{image.format} {image.mode}"
            if getattr(image, "is_animated", False):
                kind += " animated"
    except Exception:  # Pillow's plug-ins raise nearly every type on damaged files; `problem_of` says which
        return ImageFacts(path, problem_of(path) or "its header cannot be read", (0, 0), "", content)
    problem = problem_of(path)
    return (
        ImageFacts(path, problem, (0, 0), "", content)
        if problem
        else ImageFacts(path, "", size, kind, content)
    )


def look_at_all(paths: Sequence[str]) -> Iterator[ImageFacts]:
    """`look_at` of all, in order and in parallel."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # its size is in the summary
        with ThreadPoolExecutor(THREADS) as pool:
            for found in pool.map(lambda chunk: [*map(look_at, chunk)], chunks):
                yield from found


def summary_of(items: Sequence[DomainItem], facts: Sequence[ImageFacts]) -> dict[Domain, DomainSummary]:
    """By domain; ``facts`` are those of ``items``, one for one."""
    found = {}
    for domain in Domain:
        own = [(item, fact) for item, fact in zip(items, facts, strict=True) if domain_of(item) == domain]
        good = [fact for _, fact in own if not fact.problem]
        found[domain] = DomainSummary(
            images=len(good),
            width=_spread([fact.size[0] for fact in good]),
            height=_spread([fact.size[1] for fact in good]),
            kinds=dict(Counter(fact.kind for fact in good).most_common()),
            identities=len({item.pid for item, _ in own if is_known(item)}),
            cameras=dict(sorted(Counter(str(item.camid) for item, _ in own).items())),
        )
    return found


def is_known(item: DomainItem) -> bool:
    """Whether the image has an identity."""
    return str(item.pid).rpartition("_")[2] != "-1" and item.pid != -1


@dataclass(frozen=True)
class Duplicates:
    """Groups of paths with the same bytes: within a domain, and in both domains, those by day first."""

    within: dict[Domain, list[list[str]]]
    across: list[list[str]]


def duplicates_of(items: Sequence[DomainItem], facts: Sequence[ImageFacts]) -> Duplicates:
    """Which images are the same file; a group that is in both domains counts as one across them only."""
    groups: dict[str, dict[str, Domain]] = defaultdict(dict)
    for item, fact in zip(items, facts, strict=True):
        if fact.content:
            groups[fact.content][item.path] = domain_of(item)
    several = [group for group in groups.values() if len(group) > 1]
    within = {domain: [[*group] for group in several if {*group.values()} == {domain}] for domain in Domain}
    across = [sorted(group, key=group.__getitem__) for group in several if len({*group.values()}) > 1]
    return Duplicates(within, across)


@dataclass(frozen=True)
class Removal:
    """What a protocol removes in one direction.

    Attributes:
        direction: its name.
        pairs: pairs of a query and a gallery image, of the first gallery.
        removed: those that the rule of removal hides.
        without_match: queries for which no right answer is left; they are not scored.
    """

    direction: str
    pairs: int
    removed: int
    without_match: int


def removals_of(items: Sequence[DomainItem], protocol: Protocol) -> list[Removal]:
    """For each direction of ``protocol``; memory for `_QUERIES` x gallery at a time."""
    ids = np.array([item.pid for item in items], dtype=np.int64)
    cams = np.array([item.camid for item in items], dtype=np.int64)
    found = []
    for one in protocol.directions:
        gallery = ImageLabels(ids[one.gallery], cams[one.gallery])
        removed = without = 0
        for start in range(0, one.query.size, _QUERIES):
            part = one.query[start : start + _QUERIES]
            hidden = protocol.removal(ImageLabels(ids[part], cams[part]), gallery)
            right = (ids[part][:, None] == gallery.ids) & ~hidden
            removed += int(hidden.sum())
            without += int((~right.any(axis=1)).sum())
        found.append(Removal(one.name, int(one.query.size * one.gallery.size), removed, without))
    return found


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    lying = image.format in _WITH_EXIF and image.getexif().get(_ORIENTATION) in _LYING
    return (height, width) if lying else (width, height)


def _spread(values: Sequence[int]) -> tuple[int, int, int]:
    return (min(values), round(median(values)), max(values)) if values else (0, 0, 0)
