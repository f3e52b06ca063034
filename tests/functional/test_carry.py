"""A matching carried over a renumbering of the clusters."""

from __future__ import annotations

import torch

from dnreid_plugins.functional.matching.carry import carried_assignment
from dnreid_plugins.functional.types import Assignment


def labels(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int64)


def test_pairs_follow_their_images() -> None:
    previous = Assignment.from_pairs(labels(0, 1, 1, 0, 2, 2).view(3, 2), torch.tensor([1.0, 1.1, 1.2]), 3, 3)
    got = carried_assignment(
        previous,
        # Day 0 -> 1; day 1 splits into 0 (three images) and 2 (one); day 2 dissolves into outliers.
        old_labels_day=labels(0, 0, 1, 1, 1, 1, 2, 2, -1),
        new_labels_day=labels(1, 1, 0, 0, 0, 2, -1, -1, 2),
        # Night 0 and 1 swap, night 2 keeps its number.
        old_labels_night=labels(0, 0, 1, 1, 2, -1),
        new_labels_night=labels(1, 1, 0, 0, 2, 2),
        num_day=3,
        num_night=3,
    )
    assert got.day_to_night.tolist() == [1, 0, -1]
    assert got.night_to_day.tolist() == [1, 0, -1]
    torch.testing.assert_close(got.day_score, torch.tensor([1.1, 1.0, 0.0]))


def test_merged_clusters_have_one_parent() -> None:
    previous = Assignment.from_pairs(labels(0, 0, 1, 1).view(2, 2), torch.ones(2), 2, 2)
    got = carried_assignment(
        previous,
        old_labels_day=labels(0, 1, 1),
        new_labels_day=labels(0, 0, 0),
        old_labels_night=labels(0, 1),
        new_labels_night=labels(0, 1),
        num_day=1,
        num_night=2,
    )
    assert got.day_to_night.tolist() == [1] and got.night_to_day.tolist() == [-1, 0]


def test_nothing_left_to_carry_to() -> None:
    previous = Assignment.from_pairs(labels(0, 0).view(1, 2), torch.ones(1), 1, 1)
    got = carried_assignment(
        previous,
        old_labels_day=labels(0, 0),
        new_labels_day=labels(-1, -1),
        old_labels_night=labels(0),
        new_labels_night=labels(0),
        num_day=0,
        num_night=1,
    )
    assert got.day_to_night.tolist() == [] and got.night_to_day.tolist() == [-1]


def test_both_sides_of_a_many_to_one_matching_are_carried() -> None:
    """Night 1 follows day 0 too, which only the night side names."""
    previous = Assignment(labels(0), labels(0, 0), torch.tensor([0.9]), torch.tensor([0.9, 0.7]))
    got = carried_assignment(
        previous,
        old_labels_day=labels(0, 0),
        new_labels_day=labels(0, 0),
        old_labels_night=labels(0, 1),
        new_labels_night=labels(1, 0),
        num_day=1,
        num_night=2,
    )
    assert got.day_to_night.tolist() == [1] and got.night_to_day.tolist() == [0, 0]
    torch.testing.assert_close(got.night_score, torch.tensor([0.7, 0.9]))


def test_a_cluster_without_a_partner_gets_none() -> None:
    previous = Assignment.from_pairs(labels(0, 0).view(1, 2), torch.ones(1), 2, 2)
    numbers = labels(0, 1)
    same = dict.fromkeys(
        ("old_labels_day", "new_labels_day", "old_labels_night", "new_labels_night"), numbers
    )
    got = carried_assignment(previous, **same, num_day=2, num_night=2)
    assert got.day_to_night.tolist() == [0, -1] and got.night_to_day.tolist() == [0, -1]


def test_a_side_that_had_no_cluster_before() -> None:
    got = carried_assignment(
        Assignment.empty(0, 1),
        old_labels_day=labels(-1, -1),
        new_labels_day=labels(0, 1),
        old_labels_night=labels(0),
        new_labels_night=labels(0),
        num_day=2,
        num_night=1,
    )
    assert got.day_to_night.tolist() == [-1, -1] and got.night_to_day.tolist() == [-1]
