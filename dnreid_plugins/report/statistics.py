"""What a data set consists of, beside what was published of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from fastreid.data.datasets import DATASET_REGISTRY
from tabulate import tabulate

from ..data.datasets.counts import count_items, count_protocol
from ..data.items import DomainItem, domain_of
from ..data.protocols import Protocol
from ..functional.types import Domain

Items = Sequence[tuple[Any, ...]]


class Figure(NamedTuple):
    """One line of the statistics; ``published`` is None where no number was published."""

    what: str
    here: str
    published: int | None = None

    @property
    def differs(self) -> bool:
        return self.published is not None and self.here != str(self.published)


def statistics(dataset: Any) -> list[Figure]:
    """Images and identities of both halves, images per identity and cameras per domain, queries and galleries.

    Args:
        dataset: one of our readers, or one of fast-reid's own data sets, whose images have no domain.

    Raises:
        DataError: the data set on disk is incomplete.
    """
    expected: Mapping[str, int] = getattr(dataset, "expected", {})
    words: Mapping[Domain, str] = getattr(dataset, "words", {Domain.DAY: "", Domain.NIGHT: "night"})
    train, test, protocol = _halves(dataset)
    found: list[Figure] = []
    for split, items in (("train", train), ("test", test)):
        if items:
            counts = count_items(split, [_with_domain(item) for item in items], words)
            found += [
                _figure(what.replace("  ", " "), number, expected)
                for what, number in counts.items()
                if number
            ]
            found += _by_domain(split, items, words)
    if protocol is not None:
        found += [_figure(what, number, expected) for what, number in count_protocol(protocol).items()]
        drawn = [one for one in protocol.directions if one.more_galleries]
        found += [Figure(f"{one.name} galleries", str(len(one.galleries))) for one in drawn]
    return found


def text_of_statistics(name: str) -> str:
    """The statistics of the registered data set ``name`` as a table; its last lines say how it differs.

    Raises:
        ValueError: there is no such data set.
        DataError: it is incomplete on disk.
    """
    known = {one.lower(): one for one in DATASET_REGISTRY._obj_map}
    if name.lower() not in known:
        raise ValueError(f"there is no data set {name!r}; choose one of {', '.join(known.values())}")
    dataset = DATASET_REGISTRY.get(known[name.lower()])()
    figures = statistics(dataset)
    rows = [
        (one.what, one.here, "" if one.published is None else one.published, "differs" if one.differs else "")
        for one in figures
    ]
    table = tabulate(rows, headers=[known[name.lower()], "here", "published", ""], disable_numparse=True)
    return f"{table}\n\n{_verdict(dataset, figures)}"


def _verdict(dataset: Any, figures: Sequence[Figure]) -> str:
    note = getattr(dataset.protocol, "note", "") if hasattr(dataset, "protocol") else ""
    compared, wrong = (
        [one for one in figures if one.published is not None],
        [one for one in figures if one.differs],
    )
    if getattr(dataset, "is_stand_in", False):
        return f"This is {note or 'a stand-in'}."
    if not compared:
        return "Nothing was published to compare it with."
    return f"{len(wrong)} of {len(compared)} published numbers differ." if wrong else "It is as published."


def _halves(dataset: Any) -> tuple[Items, Items, Protocol | None]:
    if hasattr(dataset, "protocol"):
        return dataset.train, dataset.test, dataset.protocol
    return dataset.train, [*dataset.query, *dataset.gallery], None


def _with_domain(item: tuple[Any, ...]) -> DomainItem:
    return DomainItem(item[0], item[1], item[2], domain_of(item))


def _figure(what: str, number: int, expected: Mapping[str, int]) -> Figure:
    return Figure(what, str(number), expected.get(what))


def _by_domain(split: str, items: Items, words: Mapping[Domain, str]) -> list[Figure]:
    """Images per identity and cameras of each domain, and the identities that both have."""
    found, ids = [], []
    for domain in Domain:
        own = [item for item in items if domain_of(item) == domain]
        if not own:
            continue
        per_identity = np.array(list(Counter(item[1] for item in own).values()))
        spread = f"{per_identity.min()} / {np.median(per_identity):g} / {per_identity.max()}"
        word = f"{split} {words[domain]}".strip()
        ids.append({item[1] for item in own})
        found += [
            Figure(f"{word} images per identity (least / median / most)", spread),
            Figure(f"{word} cameras", str(len({item[2] for item in own}))),
        ]
    if len(ids) == 2:
        found.append(Figure(f"{split} identities in both domains", str(len(ids[0] & ids[1]))))
    return found
