"""Batch shapes on which fast-reid's samplers spin are refused; those that pass really give a batch."""

from __future__ import annotations

import itertools

import pytest
from fastreid.data.samplers import BalancedIdentitySampler, NaiveIdentitySampler
from hypothesis import given
from hypothesis import strategies as st

from dnreid_plugins.data.identity_batches import check_identity_batch


def items_of(num_ids: int, each: int = 3) -> list[tuple[str, str, str]]:
    return [(f"{pid}_{i}.jpg", f"s_{pid}", f"c_{i % 2}") for pid in range(num_ids) for i in range(each)]


@pytest.mark.parametrize(
    ("num_ids", "batch", "instances", "sentence"),
    [
        (4, 8, 3, "not a multiple of DATALOADER.NUM_INSTANCE 3"),
        (3, 8, 2, "needs 4 identities, the training set has 3; lower SOLVER.IMS_PER_BATCH to 6"),
        (4, 2, 4, "NUM_INSTANCE 4 exceeds the batch of 2"),
        (4, 0, 1, "must be at least 1"),
        (4, 4, 0, "must be at least 1"),
        (0, 4, 2, "needs 2 identities, the training set has 0"),
    ],
)
def test_refusals(num_ids: int, batch: int, instances: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        check_identity_batch(items_of(num_ids), batch, instances)


@given(
    num_ids=st.integers(1, 6),
    each=st.integers(1, 4),
    per_batch=st.integers(1, 6),
    instances=st.integers(1, 4),
)
def test_what_passes_gives_batches(num_ids: int, each: int, per_batch: int, instances: int) -> None:
    items, batch = items_of(num_ids, each), per_batch * instances
    try:
        check_identity_batch(items, batch, instances)
    except ValueError:
        assert num_ids < per_batch
        return
    for sampler in (NaiveIdentitySampler, BalancedIdentitySampler):
        drawn = list(itertools.islice(sampler(items, batch, instances, seed=1), batch))
        assert len({items[i][1] for i in drawn}) == per_batch
