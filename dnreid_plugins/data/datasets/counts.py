"""How many images, identities and queries a reader finds, and how that differs from what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...functional.types import Domain
from ..items import DomainItem
from ..protocols import Protocol

#: A file of this name marks the folder of a set that was rendered in the layout of a real one.
STAND_IN = "stand-in.json"
STAND_IN_NOTE = "a stand-in, not the real set"


def count_items(split: str, items: Sequence[DomainItem], words: Mapping[Domain, str]) -> dict[str, int]:
    """``"<split> <domain> images"`` and ``identities`` of both domains, and ``"<split> identities"``."""
    counts = {}
    for domain in Domain:
        own = [item.pid for item in items if item.domain == domain]
        counts[f"{split} {words[domain]} images"] = len(own)
        counts[f"{split} {words[domain]} identities"] = len(set(own))
    return {**counts, f"{split} identities": len({item.pid for item in items})}


def count_protocol(protocol: Protocol) -> dict[str, int]:
    """``"<direction> queries"`` and ``"<direction> gallery"`` (the first gallery) of every direction."""
    return {
        f"{one.name} {part}": len(index)
        for one in protocol.directions
        for part, index in (("queries", one.query), ("gallery", one.gallery))
    }


def differences(counts: Mapping[str, int], expected: Mapping[str, int]) -> list[str]:
    """A phrase for each of ``counts`` that differs from the published number; those that are not known are left out."""
    return [
        f"{what} {number} (published: {expected[what]}, difference {number - expected[what]:+d})"
        for what, number in counts.items()
        if what in expected and number != expected[what]
    ]
