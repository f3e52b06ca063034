"""DGM, PGM and plain Hungarian against brute force, worked examples and invariances."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dnreid_plugins.functional.matching.graphs import (
    GraphMatching,
    dictionary_graph_matching,
    hungarian_matching,
    progressive_graph_matching,
)
from dnreid_plugins.functional.types import Assignment

SHAPES = [(1, 1), (1, 4), (4, 1), (3, 4), (4, 3), (4, 4), (4, 5)]


def unit(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def pair_with_cosine(cosine: float) -> tuple[Tensor, Tensor]:
    """One day and one night centroid of the given similarity."""
    cosine_t = torch.tensor(cosine, dtype=torch.float64)
    night = torch.stack([cosine_t, torch.sqrt(1 - cosine_t**2)])[None]
    return torch.tensor([[1.0, 0.0]], dtype=torch.float64), night


def brute_force_cost(cost: Tensor) -> float:
    """Smallest total cost over all one-to-one matchings of the smaller side."""
    if cost.shape[0] > cost.shape[1]:
        cost = cost.T
    rows = range(cost.shape[0])
    return min(sum(float(cost[i, p[i]]) for i in rows) for p in permutations(range(cost.shape[1]), len(rows)))


def assert_inverse_maps(assignment: Assignment) -> None:
    for i, j in enumerate(assignment.day_to_night.tolist()):
        assert j < 0 or int(assignment.night_to_day[j]) == i
    for j, i in enumerate(assignment.night_to_day.tolist()):
        assert i < 0 or int(assignment.day_to_night[i]) == j


@pytest.mark.parametrize(("num_day", "num_night"), SHAPES)
def test_hungarian_reaches_the_best_total(num_day: int, num_night: int) -> None:
    similarity = torch.rand(
        num_day, num_night, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    got = hungarian_matching(similarity)
    assert_inverse_maps(got)
    assert int((got.day_to_night >= 0).sum()) == min(num_day, num_night)
    assert float(got.day_score.double().sum()) == pytest.approx(-brute_force_cost(-similarity), abs=1e-6)
    for i, j in got.pairs().tolist():
        assert float(got.day_score[i]) == pytest.approx(float(similarity[i, j]), abs=1e-7)


@pytest.mark.parametrize(("num_day", "num_night"), SHAPES)
@pytest.mark.parametrize("progress", [0.0, 0.5, 0.7])
def test_dgm_equals_brute_force_on_the_loop_cost(num_day: int, num_night: int, progress: float) -> None:
    day = unit(num_day, num_day, 3)
    night = torch.cat([day, unit(9, num_night, 3)])[:num_night] + 0.6 * unit(11, num_night, 3)
    cost = torch.ones(num_day, num_night, dtype=torch.float64)
    threshold = 0.7 + 0.45 * progress
    edges = 0
    for i in range(num_day):
        for j in range(num_night):
            s = float((day[i] * night[j]).sum() / (day[i].norm() * night[j].norm()))
            m = 1 + 0.2 * (s - 0.5) if s >= 0.5 else 0.2 * s
            if m >= threshold:
                cost[i, j], edges = 1 - m, edges + 1
    got = dictionary_graph_matching(day, night, progress=progress)
    pairs = got.assignment.pairs()
    assert got.num_edges == edges and got.threshold == pytest.approx(threshold)
    assert_inverse_maps(got.assignment)
    assert bool((cost[pairs[:, 0], pairs[:, 1]] < 1).all())
    dropped = min(num_day, num_night) - len(pairs)
    total = float(cost[pairs[:, 0], pairs[:, 1]].sum()) + dropped
    assert total == pytest.approx(brute_force_cost(cost), abs=1e-9)
    torch.testing.assert_close(
        got.assignment.day_score[pairs[:, 0]].double(), 1 - cost[pairs[:, 0], pairs[:, 1]], rtol=0, atol=1e-6
    )


def test_the_solver_is_global_where_greedy_is_not() -> None:
    similarity = torch.tensor([[0.9, 0.8], [0.8, 0.1]])
    assert hungarian_matching(similarity).day_to_night.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("best", "first_empty_of_100", "first_empty_of_50"),
    [(0.5, 67, 34), (0.6, 72, 36), (0.7, 76, 38), (0.8, 81, 41), (0.9, 85, 43), (1.0, 89, 45)],
)
def test_the_graph_vanishes_when_the_arithmetic_says(
    best: float, first_empty_of_100: int, first_empty_of_50: int
) -> None:
    # A hair above the similarity, so that the equality T_ada = M falls on the surviving side.
    day, night = pair_with_cosine(min(best + 1e-9, 1.0))
    for total, first in [(100, first_empty_of_100), (50, first_empty_of_50)]:
        edges = [dictionary_graph_matching(day, night, progress=e / total).num_edges for e in range(total)]
        assert edges == [1] * first + [0] * (total - first)


def vanished(**options: object) -> GraphMatching:
    day, night = pair_with_cosine(0.8)
    day, night = torch.cat([day, -day]), torch.cat([night, -night, -night])
    return dictionary_graph_matching(day, night, progress=0.95, **options)  # type: ignore[arg-type]


def test_an_empty_graph_matches_nothing_by_default() -> None:
    got = vanished()
    assert got.num_edges == 0 and len(got.assignment.pairs()) == 0
    assert got.best_similarity == pytest.approx(0.8)
    assert len(vanished(on_empty="keep_last").assignment.pairs()) == 0
    nothing = dictionary_graph_matching(torch.empty(0, 2), torch.ones(3, 2), progress=0.1)
    assert nothing.num_edges == 0 and nothing.best_similarity != nothing.best_similarity


def test_an_empty_graph_can_keep_the_last_matching() -> None:
    last = Assignment.from_pairs(torch.tensor([[1, 2]]), torch.tensor([1.05]), 2, 3)
    got = vanished(on_empty="keep_last", previous=last)
    assert got.assignment is last and got.num_edges == 0
    with pytest.raises(ValueError, match="matches 4 day and 2 night clusters, but this epoch has 2 and 3"):
        vanished(on_empty="keep_last", previous=Assignment.empty(4, 2))
    day, night = pair_with_cosine(0.8)
    living = dictionary_graph_matching(day, night, progress=0.1, on_empty="keep_last", previous=last)
    assert living.assignment is not last and living.num_edges == 1


def test_the_cap_keeps_the_best_edges_but_lets_no_unbelieved_pair_in() -> None:
    got = vanished(on_empty="cap")
    assert got.threshold == pytest.approx(1.06 - 0.005) and got.num_edges == 3
    assert got.assignment.day_to_night[0] == 0 and got.assignment.day_to_night[1] in (1, 2)
    day, night = pair_with_cosine(0.4)
    unbelieved = dictionary_graph_matching(day, night, progress=0.95, on_empty="cap")
    assert unbelieved.num_edges == 0 and unbelieved.threshold == pytest.approx(0.7)


@pytest.mark.parametrize(("num_day", "num_night"), [(0, 3), (3, 0), (0, 0)])
def test_an_empty_side_gives_an_empty_assignment(num_day: int, num_night: int) -> None:
    day, night = torch.zeros(num_day, 4), torch.zeros(num_night, 4)
    for got in (
        dictionary_graph_matching(day, night, progress=0.0).assignment,
        progressive_graph_matching(day, night),
        hungarian_matching(torch.zeros(num_day, num_night)),
    ):
        assert got.day_to_night.tolist() == [-1] * num_day and got.night_to_day.tolist() == [-1] * num_night


@pytest.mark.parametrize("method", ["dgm", "pgm", "hungarian"])
def test_relabelling_one_domain_renames_the_pairs_and_nothing_else(method: str) -> None:
    day = unit(0, 6, 4)
    night = F.normalize(day[torch.tensor([3, 0, 5, 1])] + 0.4 * unit(1, 4, 4), dim=1)
    names = torch.tensor([2, 0, 3, 1])  # night cluster j becomes names[j]
    renamed = torch.empty_like(night)
    renamed[names] = night

    def matched(night_rows: Tensor) -> Assignment:
        if method == "dgm":
            return dictionary_graph_matching(day, night_rows, progress=0.3).assignment
        if method == "pgm":
            return progressive_graph_matching(day, night_rows)
        return hungarian_matching(day @ night_rows.T)

    before, after = matched(night), matched(renamed)
    expected = torch.where(before.day_to_night >= 0, names[before.day_to_night.clamp(min=0)], -1)
    assert after.day_to_night.tolist() == expected.tolist()
    torch.testing.assert_close(after.day_score, before.day_score)
    torch.testing.assert_close(after.night_score[names], before.night_score)


@pytest.mark.parametrize(("num_day", "num_night"), [*SHAPES, (3, 10), (10, 3), (2, 8)])
def test_pgm_covers_both_sides_whichever_is_larger(num_day: int, num_night: int) -> None:
    day, night = unit(0, num_day, 5), unit(1, num_night, 5)
    got = progressive_graph_matching(day, night)
    small, large = sorted([num_day, num_night])
    assert bool((got.day_to_night >= 0).all()) and bool((got.night_to_day >= 0).all())
    to_small = got.day_to_night if num_day >= num_night else got.night_to_day
    uses = torch.bincount(to_small, minlength=small)
    # Every round but the last uses each small cluster exactly once.
    assert int(uses.max()) == -(-large // small) and int(uses.min()) >= large // small
    # Round 1 is the optimal assignment under 1 / exp(cos), and both maps agree on it.
    to_large = got.night_to_day if num_day >= num_night else got.day_to_night
    assert bool((to_small[to_large] == torch.arange(small)).all())
    cost = torch.exp(-(day @ night.T))
    cost = cost if num_day <= num_night else cost.T
    total = float(cost[torch.arange(small), to_large].sum())
    if large <= 5:
        assert total == pytest.approx(brute_force_cost(cost), abs=1e-9)
    for i, j in enumerate(got.day_to_night.tolist()):
        assert float(got.day_score[i]) == pytest.approx(float(day[i] @ night[j]), abs=1e-6)


def test_pgm_stops_at_the_cap_and_is_symmetric() -> None:
    day, night = unit(0, 7, 5), unit(1, 3, 5)
    capped = progressive_graph_matching(day, night, max_rounds=2)
    assert int((capped.day_to_night >= 0).sum()) == 6 and bool((capped.night_to_day >= 0).all())
    once = progressive_graph_matching(day, night, max_rounds=1)
    assert int((once.day_to_night >= 0).sum()) == 3 and torch.equal(once.night_to_day, capped.night_to_day)
    there, back = progressive_graph_matching(day, night), progressive_graph_matching(night, day)
    assert torch.equal(there.day_to_night, back.night_to_day)
    assert torch.equal(there.night_to_day, back.day_to_night)


def test_refusals_name_the_value() -> None:
    day, night = pair_with_cosine(0.8)
    with pytest.raises(ValueError, match="got 'ignore'"):
        dictionary_graph_matching(day, night, progress=0.5, on_empty="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="got 1.5 of 1.0"):
        dictionary_graph_matching(day, night, progress=1.5)
    with pytest.raises(ValueError, match="max_rounds must be at least 1 or None, got 0"):
        progressive_graph_matching(day, night, max_rounds=0)


@pytest.mark.parametrize(("day", "night", "seed"), [(3, 7, 0), (7, 3, 1), (5, 5, 2), (1, 4, 3), (4, 1, 4)])
def test_second_round_gives_leftovers_an_edge_and_keeps_the_first(day: int, night: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(6, generator=generator)
    sides = [F.normalize(centre + 0.6 * torch.randn(n, 6, generator=generator), dim=1) for n in (day, night)]
    options: dict[str, Any] = {"progress": 0.3, "threshold_start": 0.7, "threshold_final": 1.15}
    once = dictionary_graph_matching(*sides, **options).assignment
    twice = dictionary_graph_matching(*sides, **options, second_round=True).assignment
    similarity = (sides[0].double() @ sides[1].double().T).tolist()
    threshold = 0.7 + 0.3 * (1.15 - 0.7)
    for domain in (0, 1):
        first, second = once.partner(domain)[0], twice.partner(domain)[0]
        assert torch.equal(second[first >= 0], first[first >= 0])
        for own, other in enumerate(second.tolist()):
            if other >= 0:
                value = similarity[own][other] if domain == 0 else similarity[other][own]
                score = 1 + 0.2 * (value - 0.5) if value >= 0.5 else 0.2 * value
                assert score >= threshold - 1e-9
                assert float(twice.partner(domain)[1][own]) == pytest.approx(score, abs=1e-6)
        # as many leftovers find a partner as an assignment of them alone to the whole other side can keep
        alone = [i for i, other in enumerate(first.tolist()) if other < 0]
        table = torch.tensor(similarity) if domain == 0 else torch.tensor(similarity).T
        scores = torch.where(table >= 0.5, 1 + 0.2 * (table - 0.5), 0.2 * table)
        edges = (scores >= threshold)[alone]
        if alone and edges.any():
            rows, columns = linear_sum_assignment(-edges.double().numpy())
            assert int((second[alone] >= 0).sum()) == int(edges[rows, columns].sum())


@pytest.mark.parametrize(
    "matching",
    [
        lambda day, night: dictionary_graph_matching(day, night, progress=0.1).assignment,
        lambda day, night: hungarian_matching(day @ night.T),
        progressive_graph_matching,
    ],
)
def test_a_matching_of_live_rows_carries_no_gradient(
    matching: Callable[[Tensor, Tensor], Assignment],
) -> None:
    day, night = unit(0, 5, 8).requires_grad_(), unit(1, 3, 8).requires_grad_()
    assert not any(table.requires_grad for domain in (0, 1) for table in matching(day, night).partner(domain))
