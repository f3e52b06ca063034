"""ADCA's pair-count matching and row merging against loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dnreid_plugins.functional.matching.pair_count import merge_rows, pair_count_matching
from dnreid_plugins.functional.types import Assignment


def naive_pair_count(day: Tensor, labels_day: Tensor, night: Tensor, labels_night: Tensor) -> list[list[int]]:
    counts: dict[tuple[int, int], int] = {}
    for f, a in zip(day, labels_day.tolist(), strict=True):
        for g, b in zip(night, labels_night.tolist(), strict=True):
            if a >= 0 and b >= 0 and float((f * g).sum()) >= 0.5:
                counts[a, b] = counts.get((a, b), 0) + 1
    taken: list[list[int]] = []
    for (a, b), _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if all(a != x and b != y for x, y in taken):
            taken.append([a, b])
    return sorted(taken)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(0, 13), st.integers(0, 13)),
    clusters=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    block=st.sampled_from([1, 3, 4, 512]),
    seed=st.integers(0, 2**31),
)
def test_equals_the_greedy_loop_over_image_pairs(
    sizes: tuple[int, int], clusters: tuple[int, int], block: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    day, night = (
        F.normalize(torch.randn(n, 3, generator=generator, dtype=torch.float64), dim=1) for n in sizes
    )
    labels_day, labels_night = (
        torch.randint(-1, c, (n,), generator=generator) for n, c in zip(sizes, clusters, strict=True)
    )
    got = pair_count_matching(day, labels_day, night, labels_night, block_rows=block)
    assert got.pairs().tolist() == naive_pair_count(day, labels_day, night, labels_night)
    assert got.day_to_night.shape[0] == (int(labels_day.max()) + 1 if sizes[0] else 0)
    assert got.night_to_day.shape[0] == (int(labels_night.max()) + 1 if sizes[1] else 0)


def test_score_is_the_share_of_similar_image_pairs() -> None:
    day = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    night = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, -1.0]])
    got = pair_count_matching(day, torch.tensor([0, 0]), night, torch.tensor([0, 0, 0]))
    # Similar: (0, 0), (0, 1) and (1, 1) of 6.
    assert float(got.day_score[0]) == pytest.approx(0.5)
    # a cosine of just the threshold counts
    exact = pair_count_matching(day, torch.tensor([0, 0]), night[:1], torch.tensor([0]), threshold=1.0)
    assert float(exact.day_score[0]) == pytest.approx(0.5)


def matched() -> tuple[Tensor, Tensor, Assignment]:
    generator = torch.Generator().manual_seed(0)
    day = F.normalize(torch.randn(3, 4, generator=generator), dim=1)
    night = F.normalize(torch.randn(4, 4, generator=generator), dim=1)
    return day, night, Assignment.from_pairs(torch.tensor([[0, 3], [2, 1]]), torch.ones(2), 3, 4)


def test_both_sides_merge_from_the_old_rows() -> None:
    day, night, assignment = matched()
    kept = day.clone(), night.clone()
    new_day, new_night = merge_rows(day, night, assignment, momentum=0.3)
    for i, j in [(0, 3), (2, 1)]:
        torch.testing.assert_close(new_day[i], F.normalize(0.3 * day[i] + 0.7 * night[j], dim=0))
        torch.testing.assert_close(new_night[j], F.normalize(0.3 * night[j] + 0.7 * day[i], dim=0))
    assert torch.equal(new_day[1], day[1]) and torch.equal(new_night[[0, 2]], night[[0, 2]])
    assert torch.equal(day, kept[0]) and torch.equal(night, kept[1])


def test_released_behaviour_is_one_sided_and_not_normalised() -> None:
    day, night, assignment = matched()
    new_day, new_night = merge_rows(day, night, assignment, momentum=0.1, one_sided=True, normalize=False)
    torch.testing.assert_close(new_day[0], 0.1 * day[0] + 0.9 * night[3])
    assert torch.equal(new_night, night) and float(new_day[0].norm()) < 0.999


def test_momentum_one_half_makes_partners_equal_and_one_changes_nothing() -> None:
    day, night, assignment = matched()
    new_day, new_night = merge_rows(day, night, assignment, momentum=0.5)
    torch.testing.assert_close(new_day[[0, 2]], new_night[[3, 1]])
    same_day, same_night = merge_rows(day, night, assignment, momentum=1.0)
    torch.testing.assert_close((same_day, same_night), (day, night))
    swapped = merge_rows(day, night, assignment, momentum=0.0)
    torch.testing.assert_close((swapped[0][[0, 2]], swapped[1][[3, 1]]), (night[[3, 1]], day[[0, 2]]))


def test_an_empty_assignment_and_opposite_rows_leave_the_memory() -> None:
    day, night, _ = matched()
    new_day, new_night = merge_rows(day, night, Assignment.empty(3, 4))
    assert torch.equal(new_day, day) and torch.equal(new_night, night)
    pair = Assignment.from_pairs(torch.tensor([[0, 0]]), torch.ones(1), 1, 1)
    opposite = merge_rows(day[:1], -day[:1], pair, momentum=0.5)
    torch.testing.assert_close(opposite, (day[:1], -day[:1]))
    # a pair that cancels out beside one that does not
    both = Assignment.from_pairs(torch.tensor([[0, 0], [1, 1]]), torch.ones(2), 2, 2)
    other = torch.stack([-day[0], night[1]])
    merged, _ = merge_rows(day[:2], other, both, momentum=0.5)
    torch.testing.assert_close(merged, torch.stack([day[0], F.normalize(day[1] + night[1], dim=0)]))


def test_refusals_name_the_value() -> None:
    day, night, assignment = matched()
    for momentum in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"got {momentum}"):
            merge_rows(day, night, assignment, momentum=momentum)
    with pytest.raises(
        ValueError, match=r"assignment is for \(3, 4\) clusters .* has 4 day and 3 night rows"
    ):
        merge_rows(night, day, assignment)
