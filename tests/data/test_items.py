"""An item is fast-reid's tuple of three and keeps its domain through copies, pickles and workers."""

from __future__ import annotations

import copy
import pickle

import pytest

from dnreid_plugins.data.items import DomainItem, domain_of
from dnreid_plugins.functional.types import Domain


def test_item_is_the_tuple_of_three() -> None:
    item = DomainItem("a.jpg", "set_1", "set_0", Domain.NIGHT)
    path, pid, camid = item
    assert (path, pid, camid) == ("a.jpg", "set_1", "set_0") == item
    assert (item.path, item.pid, item.camid, item.domain) == ("a.jpg", "set_1", "set_0", Domain.NIGHT)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda item: pickle.loads(pickle.dumps(item))])
@pytest.mark.parametrize("domain", Domain)
def test_copies_keep_the_domain(copied, domain: Domain) -> None:
    twin = copied([DomainItem("a.jpg", 1, 0, domain)])[0]
    assert twin == ("a.jpg", 1, 0)
    assert twin.domain is domain


def test_plain_tuples_count_as_day_and_unknown_domains_are_refused() -> None:
    assert domain_of(("a.jpg", 1, 0)) is Domain.DAY
    with pytest.raises(ValueError, match="2"):
        DomainItem("a.jpg", 1, 0, 2)


def test_fastreid_reads_items() -> None:
    from fastreid.data.common import CommDataset
    from fastreid.data.samplers import NaiveIdentitySampler

    items = [DomainItem(f"{i}.jpg", f"s_{i % 2}", "s_0", i % 2) for i in range(8)]
    assert CommDataset(items, relabel=True).num_classes == 2
    assert len(next(iter(zip(*[iter(NaiveIdentitySampler(items, 4, 2, seed=1))] * 4)))) == 4
