"""Majority identities and matching precision."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch

from dnreid_plugins.functional.matching.quality import majority_identity, matching_precision
from dnreid_plugins.functional.types import Assignment


@pytest.mark.parametrize("seed", range(5))
def test_majority_equals_a_counter(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 6, (40,), generator=generator)
    ids = torch.randint(0, 5, (40,), generator=generator)
    got = majority_identity(labels, ids, 8)
    for cluster in range(8):
        members = Counter(ids[labels == cluster].tolist())
        expected = min(members, key=lambda i: (-members[i], i)) if members else -1
        assert int(got[cluster]) == expected


def test_majority_of_nothing() -> None:
    assert majority_identity(torch.tensor([-1, -1]), torch.tensor([3, 4]), 2).tolist() == [-1, -1]


def test_precision_counts_every_distinct_pair_once() -> None:
    # Day 0 and 1 both go to night 0 (many to one); night 0 names day 0. Three pairs of five are right.
    day_to_night, night_to_day = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([0, 2, 3, 4])
    assignment = Assignment(day_to_night, night_to_day, torch.ones(5), torch.ones(4))
    precision = matching_precision(assignment, torch.tensor([7, 8, -1, 0, 5]), torch.tensor([7, -1, 0, 5]))
    assert precision == pytest.approx(3 / 5)


def test_precision_of_no_pair_is_not_a_number() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    assert math.isnan(matching_precision(Assignment.empty(2, 0), torch.tensor([1, 2]), empty))
