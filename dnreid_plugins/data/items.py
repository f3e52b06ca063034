"""One image of a data set: fast-reid's ``(path, pid, camid)`` with a domain."""

from __future__ import annotations

from typing import Any

from ..functional.types import Domain


class DomainItem(tuple):
    """fast-reid's 3-tuple ``(path, pid, camid)`` with the attribute ``domain``.

    It stays a tuple of three, so that every sampler and data set of fast-reid keeps working. Camera and domain are
    different things (SYSU-MM01 has six cameras). Copies and pickles keep the domain; slices and
    sums are plain tuples.
    """

    domain: Domain

    def __new__(cls, path: str, pid: int | str, camid: int | str, domain: Domain | int) -> DomainItem:
        item = super().__new__(cls, (path, pid, camid))
        item.domain = Domain(domain)
        return item

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (*self, int(self.domain))

    @property
    def path(self) -> str:
        return self[0]

    @property
    def pid(self) -> int | str:
        return self[1]

    @property
    def camid(self) -> int | str:
        return self[2]


def domain_of(item: tuple[Any, ...]) -> Domain:
    """Domain of an item; items of fast-reid's own data sets have none and count as day where one is required."""
    return getattr(item, "domain", Domain.DAY)
