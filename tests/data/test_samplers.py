"""The sampler's laws on random labels: what a batch holds, what an epoch covers, who sees which slice."""

from __future__ import annotations

import itertools
import logging
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dnreid_plugins.data.samplers import CrossDomainIdentitySampler
from dnreid_plugins.functional.types import Assignment, Domain
from dnreid_plugins.runtime.generators import seed_generators


@st.composite
def labelled(draw: st.DrawFn, least: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels and domains of a shuffled list with at least ``least`` clusters per domain and some outliers."""
    labels, domains = [], []
    for domain in Domain:
        sizes = draw(st.lists(st.integers(1, 9), min_size=least, max_size=12))
        found = [cluster for cluster, size in enumerate(sizes) for _ in range(size)]
        found += [-1] * draw(st.integers(0, 5))
        labels += found
        domains += [int(domain)] * len(found)
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(len(labels))
    return np.array(labels)[order], np.array(domains)[order]


def make(labels, domains, **options) -> CrossDomainIdentitySampler:
    values = {"num_clusters": 4, "num_instances": 3, "iterations": 7, "seed": 5, **options}
    return CrossDomainIdentitySampler(labels, domains, **values)


def indices(batch: list[tuple[int, int]]) -> np.ndarray:
    return np.array([index for index, _ in batch])


@given(data=labelled(), num_clusters=st.integers(1, 6), num_instances=st.integers(1, 6))
def test_every_batch_is_clusters_times_instances_day_first(
    data, num_clusters: int, num_instances: int
) -> None:
    labels, domains = data
    sampler = make(labels, domains, num_clusters=num_clusters, num_instances=num_instances)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 7
    for batch in batches:
        index = indices(batch).reshape(2, num_clusters, num_instances)
        assert (domains[index[0]] == 0).all() and (domains[index[1]] == 1).all()
        for part in index:
            assert (labels[part] >= 0).all() and (labels[part] == labels[part][:, :1]).all()
            for domain in (domains[part[0, 0]],):
                for row in part:
                    members = np.flatnonzero((labels == labels[row[0]]) & (domains == domain))
                    counts = Counter(row.tolist())
                    if len(members) >= num_instances:
                        assert len(counts) == num_instances
                    else:
                        assert set(counts) == set(members.tolist())
                        assert max(counts.values()) - min(counts.values()) <= 1


@given(data=labelled(), num_clusters=st.integers(1, 6))
def test_no_cluster_comes_again_before_all_have_come(data, num_clusters: int) -> None:
    labels, domains = data
    batches = list(make(labels, domains, num_clusters=num_clusters, num_instances=2, iterations=20))
    for domain in Domain:
        total = labels[domains == domain].max() + 1
        rows = [labels[indices(b).reshape(2, num_clusters, 2)[int(domain), :, 0]] for b in batches]
        stream = np.concatenate(rows)
        for start in range(0, len(stream) - total + 1, total):
            assert sorted(stream[start : start + total]) == list(range(total))
        if total >= num_clusters:
            assert all(len(set(row)) == num_clusters for row in rows)


@given(data=labelled(), world_size=st.integers(1, 4))
def test_joined_ranks_are_the_stream_of_one_process(data, world_size: int) -> None:
    labels, domains = data
    options = {"num_clusters": 2 * world_size, "num_instances": 3}
    whole = list(make(labels, domains, **options))
    parts = [list(make(labels, domains, rank=r, world_size=world_size, **options)) for r in range(world_size)]
    for number, batch in enumerate(whole):
        slices = [part[number] for part in parts]
        assert sorted(entry for piece in slices for entry in piece) == sorted(batch)
        for piece in slices:  # whole clusters of both domains, day first
            index = indices(piece).reshape(2, 2, 3)
            assert (domains[index[0]] == 0).all() and (domains[index[1]] == 1).all()
            assert (labels[index] == labels[index][..., :1]).all()


@given(data=labelled(), start=st.integers(0, 9), epoch=st.integers(0, 3))
def test_a_resumed_epoch_goes_on_with_the_same_batches(data, start: int, epoch: int) -> None:
    first, second = make(*data), make(*data)
    first.set_epoch(epoch)
    whole = list(first)
    second.set_epoch(epoch)
    second.start = start
    assert list(second) == whole[start:]
    assert len(second) == len(whole[start:])
    second.set_epoch(epoch)
    assert list(second) == whole


@given(data=labelled())
def test_the_stream_is_a_function_of_seed_and_epoch_alone(global_states, data) -> None:
    sampler = make(*data)
    before = list(sampler)
    seed_generators(1)
    states = global_states()
    assert list(sampler) == before == list(make(*data))
    assert states == global_states()
    seeds = [[seed for _, seed in batch] for batch in before]
    others = [seed for sampler in (make(*data, seed=6),) for batch in sampler for _, seed in batch]
    sampler.set_epoch(1)
    others += [seed for batch in sampler for _, seed in batch]
    flat = [seed for batch in seeds for seed in batch]
    assert len(set(flat)) == len(flat) and not set(flat) & set(others)
    assert all(0 <= seed < 2**63 for seed in flat)


def test_augmentation_seed_belongs_to_the_place_in_the_global_batch() -> None:
    labels, domains = np.repeat(np.arange(8), 4), np.repeat([0, 1], 16)
    labels[16:] -= 4
    other = labels.copy()
    other[:16] = np.arange(16) % 4
    a, b = make(labels, domains), make(other, domains)
    assert [[s for _, s in batch] for batch in a] == [[s for _, s in batch] for batch in b]
    assert list(a) != list(b)


def test_fewer_clusters_than_places_repeat_and_say_so(caplog: pytest.LogCaptureFixture) -> None:
    labels, domains = np.array([0, 0, 1, 0, 1, 2]), np.array([0, 0, 0, 1, 1, 1])
    with caplog.at_level(logging.WARNING):
        sampler = make(labels, domains)
    assert "2 day clusters for 4 places" in caplog.text and "3 night clusters for 4 places" in caplog.text
    for batch in sampler:
        found = labels[indices(batch).reshape(2, 4, 3)[:, :, 0]]
        assert Counter(found[0].tolist()) == {0: 2, 1: 2}
        assert sorted(Counter(found[1].tolist()).values()) == [1, 1, 2]


@pytest.mark.parametrize("empty", Domain)
def test_a_domain_without_clusters_is_left_out_and_named(
    empty: Domain, caplog: pytest.LogCaptureFixture
) -> None:
    domains = np.repeat([0, 1], 6)
    labels = np.where(domains == empty, -1, np.tile([0, 1, 2], 4))
    with caplog.at_level(logging.WARNING):
        sampler = make(labels, domains, num_clusters=2)
    assert f"no {empty.name.lower()} cluster" in caplog.text
    batches = list(sampler)
    assert all(len(batch) == 6 and (domains[indices(batch)] == empty.other).all() for batch in batches)


def test_nothing_clustered_names_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"CLUSTER\.EPS or lower CLUSTER\.MIN_SAMPLES"):
        make([-1, -1], [0, 1])
    sampler = make(None, [0, 1])
    with pytest.raises(ValueError, match="no labels yet"):
        next(iter(sampler))


def test_one_identity_with_one_image_does_not_hang() -> None:
    assert indices(next(iter(make([0], [1])))).tolist() == [0] * 12


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_clusters": 0}, "num_clusters is 0"),
        ({"num_instances": 0}, "num_instances is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"world_size": 0}, "world_size is 0"),
        ({"num_clusters": 3, "world_size": 2}, "3 clusters per domain cannot be divided among 2 processes"),
        ({"rank": 1}, "rank is 1 of 1|rank 1 of 1"),
        ({"seed": -1}, "seed"),
    ],
)
def test_refusals(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make([0, 0], [0, 1], **options)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ([0], "must both be"),
        ([[0, 0]], "must both be"),
        ([0, 2, 0], "numbered 0 .* got 2 up to 2"),
        ([1, 1], "numbered 0 .* got 1 up to 1"),
    ],
)
def test_labels_must_fit_and_have_no_gap(labels, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(labels, [0, 0] if len(labels) != 3 else [0, 0, 1])


def test_new_labels_count_from_the_next_iterator() -> None:
    domains = np.repeat([0, 1], 6)
    sampler = make(np.zeros(12), domains)
    sampler.set_labels(torch.tensor([-1] * 5 + [0] * 6 + [-1]))
    assert set(indices(list(itertools.chain(*sampler))).tolist()) == set(range(5, 11))


@given(data=labelled(), pairing=st.integers(0, 99), num_clusters=st.integers(1, 5))
def test_paired_batches_put_partners_at_the_same_place(data, pairing: int, num_clusters: int) -> None:
    labels, domains = data
    rng = np.random.default_rng(pairing)
    counts = [int(labels[domains == domain].max()) + 1 for domain in Domain]
    matched = rng.integers(0, min(counts) + 1)
    pairs = torch.from_numpy(np.stack([rng.permutation(count)[:matched] for count in counts], axis=1))
    partners = Assignment.from_pairs(pairs.reshape(-1, 2), torch.ones(matched), *counts)
    sampler = make(
        labels, domains, num_clusters=num_clusters, num_instances=2, partners=partners, iterations=30
    )
    seen: list[list[int]] = []
    for batch in sampler:
        seen += labels[indices(batch).reshape(2, num_clusters, 2)[:, :, 0]].T.tolist()
    for day, night in seen:
        partner = int(partners.day_to_night[day])
        assert partner == -1 or night == partner or int(partners.night_to_day[night]) == -1
    rounds = matched + max(counts) - matched
    assert {tuple(pair) for pair in pairs.tolist()} <= {tuple(pair) for pair in seen[:rounds]} or len(
        seen
    ) < rounds
    if len(seen) >= rounds:
        for domain in Domain:
            assert {pair[int(domain)] for pair in seen[:rounds]} == set(range(counts[domain]))


def test_a_matching_of_other_clusters_is_refused() -> None:
    with pytest.raises(ValueError, match=r"matching covers \(2, 1\) .* labels \(1, 1\)"):
        list(make([0, 0], [0, 1], partners=Assignment.empty(2, 1)))
