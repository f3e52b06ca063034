"""Labels under what a person has said: the rules one by one, and an obvious twin with sets on random cases."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from dnreid_plugins.functional.corrections import Corrections, corrected_labels, known_pairs
from dnreid_plugins.functional.types import Assignment


def said(same: list[int], apart: list[tuple[int, int]] = (), left_out: tuple[int, ...] = ()) -> Corrections:
    out = torch.zeros(len(same), dtype=torch.bool)
    out[list(left_out)] = True
    return Corrections(torch.tensor(same), torch.tensor(list(apart)).reshape(-1, 2).long(), out)


def corrected(labels: list[int], *args: object) -> list[int]:
    given = torch.tensor(labels)
    result = corrected_labels(given, said(*args))  # type: ignore[arg-type]
    assert given.tolist() == labels, "the labels that were given have changed"
    return result.tolist()


def test_about_some_images_what_is_said_of_others_is_left_out() -> None:
    every = said([0, -1, 0, 1], [(0, 1), (0, 3), (1, 0)], (1, 3))
    some = every.of(torch.tensor([2, 3, 0]))
    assert some.same.tolist() == [0, 1, 0] and some.apart.tolist() == [[0, 1], [1, 2]]
    assert some.left_out.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("labels", "same", "apart", "left_out", "expected"),
    [
        pytest.param([], [], [], (), [], id="no image"),
        pytest.param([0], [-1], [], (), [0], id="one image, nothing said"),
        pytest.param([0, 0, 1], [-1] * 3, [], (1,), [0, -1, 1], id="left out"),
        pytest.param([0, 0, 1, 1, 1], [0] * 5, [], (), [1] * 5, id="merged into the larger"),
        pytest.param([0, 0, 1, 1], [0] * 4, [], (), [0] * 4, id="equal: into the lower number"),
        pytest.param([0, 0, 0, 1], [-1, -1, 0, 0], [], (), [0, 0, 0, 0], id="others stay where they are"),
        pytest.param([-1, -1, 0], [0, 0, -1], [], (), [1, 1, 0], id="outliers become a cluster"),
        pytest.param(
            [-1, -1, 0], [0, 0, 0], [], (), [0, 0, 0], id="outliers join the one that is in a cluster"
        ),
        pytest.param([-1, -1], [0, -1], [], (), [-1, -1], id="a group of one is no cluster"),
        pytest.param([0] * 4, [-1, -1, 0, 0], [(0, 0), (0, 1)], (), [0, 0, 1, 1], id="split off"),
        pytest.param([0] * 4, [-1, -1, -1, 0], [(0, 0)], (), [0, 0, 0, -1], id="one image split off"),
        pytest.param([0, 0, 0, 1, 1], [-1, 0, 0, 0, -1], [(0, 0)], (), [0, 1, 1, 1, 1], id="its second wish"),
        pytest.param([0] * 5, [0, 0, 0, 1, 1], [(0, 3)], (), [0, 0, 0, 1, 1], id="the smaller gives way"),
        pytest.param([0] * 4, [0, 0, 1, 1], [(0, 2)], (), [0, 0, 1, 1], id="equal: the newer gives way"),
        pytest.param([0] * 3, [0, 0, 1], [(1, 0)], (2,), [0, 0, -1], id="left out beats apart"),
        pytest.param(
            [0, 0, 5, 5], [-1, 0, -1, 0], [(0, 0), (0, 2)], (), [0, 6, 5, 6], id="nowhere else to go"
        ),
        pytest.param([-1] * 3, [0, 0, -1], [(0, 2)], (), [0, 0, -1], id="outliers do not stand in the way"),
    ],
)
def test_the_rules(
    labels: list[int],
    same: list[int],
    apart: list[tuple[int, int]],
    left_out: tuple[int, ...],
    expected: list[int],
) -> None:
    assert corrected(labels, same, apart, left_out) == expected


def twin(labels: list[int], same: list[int], apart: set[tuple[int, int]], out: set[int]) -> list[int]:
    """The docstring of `corrected_labels` with sets and counters, image by image."""
    result = [-1 if n in out else label for n, label in enumerate(labels)]
    groups = {g: [n for n, one in enumerate(same) if one == g] for g in sorted(set(same) - {-1})}
    counts = {g: Counter(result[n] for n in images if result[n] >= 0) for g, images in groups.items()}
    new = max(labels, default=-1) + 1
    for g, images in groups.items():
        if len(images) >= 2:
            best = min(counts[g], key=lambda one: (-counts[g][one], one), default=None)
            for n in images:
                result[n] = new if best is None else best
            new += best is None
    for g in sorted(groups, key=lambda one: (len(groups[one]), -one)):
        enemies = {n for h, n in apart if h == g}
        enemies |= {n for h, image in apart if image in groups[g] and h in groups for n in groups[h]}
        taken = {result[n] for n in enemies if result[n] >= 0}
        if result[groups[g][0]] not in taken:
            continue
        left = [one for one in sorted(counts[g], key=lambda one: (-counts[g][one], one)) if one not in taken]
        if len(groups[g]) == 1:
            result[groups[g][0]] = -1
        else:
            for n in groups[g]:
                result[n] = left[0] if left else new
            new += not left
    return result


@pytest.mark.parametrize("seed", range(60))
def test_the_twin_agrees_and_everything_said_holds(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()

    size = draw(0, 40, 1)[0]
    labels, same = draw(-1, 6, size), draw(-1, 7, size)
    out = set(draw(0, max(size, 1), 3)) if size else set()
    same = [-1 if n in out else group for n, group in enumerate(same)]
    pairs = set(zip(draw(0, 7, 12), draw(0, size, 12))) if size else set()
    apart = {(g, n) for g, n in pairs if same[n] != g}
    found = corrected(labels, same, sorted(apart), tuple(out))
    assert found == twin(labels, same, apart, out)
    for n, group in enumerate(same):
        friends = {found[m] for m, one in enumerate(same) if one == group and group >= 0}
        assert len(friends) <= 1
        if group < 0:
            assert found[n] == (-1 if n in out else labels[n])
    for g, n in apart:
        assert all(found[m] != found[n] or found[n] < 0 for m, one in enumerate(same) if one == g)
    assert corrected(found, same, sorted(apart), tuple(out)) == found, "a second time it changes something"


def pairs(day: list[int], night: list[int], one: Corrections) -> tuple[list[list[int]], list[list[int]]]:
    known = known_pairs(torch.tensor(day), torch.tensor(night), one)
    assert known.same.shape[1] == known.apart.shape[1] == 2
    return known.same.tolist(), known.apart.tolist()


def test_groups_in_both_domains_are_pairs_of_clusters() -> None:
    day, night = [3, 3, 1, -1, -1, -1], [-1, -1, -1, 0, 0, 2]
    assert pairs(day, night, said([0, 0, -1, 0, 0, -1])) == ([[3, 0]], [])
    assert pairs(day, night, said([-1] * 6)) == ([], [])
    # the newer group is right, for either cluster
    assert pairs(day, night, said([0, 1, -1, 0, -1, 1])) == ([[3, 2]], [])
    assert pairs(day, night, said([0, -1, 1, 0, 1, -1])) == ([[1, 0]], [])
    # outliers are of no pair
    assert pairs([-1, -1], [-1, 0], said([0, 0])) == ([], [])


def test_what_is_apart_across_domains_bars_a_pair() -> None:
    day, night = [3, 3, 1, -1, -1, -1], [-1, -1, -1, 0, 0, 2]
    assert pairs(day, night, said([-1, -1, -1, 0, 0, -1], [(0, 0), (0, 2)])) == ([], [[1, 0], [3, 0]])
    assert pairs(day, night, said([0, 0, -1, -1, -1, -1], [(0, 3), (0, 2)])) == ([], [[3, 0]])
    # what is known to be one is not barred at the same time
    assert pairs(day, night, said([0, -1, -1, 0, 1, -1], [(1, 0)])) == ([[3, 0]], [])


def entries(one: Assignment) -> list[list[float]]:
    maps: tuple[Tensor, ...] = (one.day_to_night, one.night_to_day, one.day_score, one.night_score)
    return [part.tolist() for part in maps]


def test_a_matching_holds_what_is_known() -> None:
    before = Assignment.from_pairs(
        torch.tensor([[0, 0], [1, 1], [2, 2]]), torch.tensor([0.5, 0.25, 0.75]), 4, 3
    )
    kept = entries(before)
    for nothing_new in (pairs_of([], []), pairs_of([], [(0, 1), (3, 2)])):
        assert entries(before.with_known(nothing_new)) == kept
    after = before.with_known(pairs_of([(0, 1)], [(2, 2), (3, 0)]))
    assert entries(after) == [[1, -1, -1, -1], [-1, 0, -1], [1.0, 0, 0, 0], [0, 1.0, 0]]
    assert entries(before) == kept, "the matching that was given has changed"
    assert after.pairs().tolist() == [[0, 1]]


def pairs_of(same: list[tuple[int, int]], apart: list[tuple[int, int]]) -> object:
    from dnreid_plugins.functional.types import KnownPairs

    return KnownPairs(*(torch.tensor(one).reshape(-1, 2).long() for one in (same, apart)))
