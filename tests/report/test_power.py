"""Standard errors over renderings and runs, against closed forms and a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dnreid_plugins.report.power import VarianceParts, estimate, variance_parts


def test_the_error_is_that_of_the_renderings_means() -> None:
    # means 1, 3 and 8: deviation sqrt(13), over 3 renderings
    found = estimate({1: [0.0, 2.0], 2: [3.0, 3.0], 3: [8.0, 8.0]})
    assert (found.mean, found.renderings, found.runs) == (4.0, 3, 6)
    assert found.error == pytest.approx(math.sqrt(13 / 3))


def test_more_runs_on_the_same_renderings_leave_their_part() -> None:
    once, often = {1: [1.0], 2: [3.0]}, {1: [1.0] * 50, 2: [3.0] * 50}
    assert estimate(once).error == estimate(often).error == 1.0


def test_one_rendering_says_nothing_of_others() -> None:
    found = estimate({7: [1.0, 2.0, 3.0], 8: []})
    assert found.mean == 2.0 and math.isnan(found.error) and (found.renderings, found.runs) == (1, 3)
    nothing = estimate({})
    assert math.isnan(nothing.mean) and math.isnan(nothing.error) and nothing.runs == 0


def test_variance_parts_by_hand() -> None:
    # within: 2 and 8, mean 5; means 1 and 7, variance 18, of which 5 / 2 is the runs'
    parts = variance_parts({1: [0.0, 2.0], 2: [5.0, 9.0]})
    assert parts == VarianceParts(18 - 2.5, 5.0)
    assert variance_parts({1: [0.0, 2.0], 2: [0.0, 2.0]}) == VarianceParts(0.0, 2.0)


@pytest.mark.parametrize("grid", [{}, {1: [1.0, 2.0]}, {1: [1.0], 2: [2.0]}, {1: [1.0, 2.0], 2: [1.0]}])
def test_uneven_and_small_grids_are_refused(grid: dict[int, list[float]]) -> None:
    with pytest.raises(ValueError, match="at least 2, on at least 2 renderings"):
        variance_parts(grid)


def test_parts_and_errors_of_a_simulation() -> None:
    rng, repeats = np.random.default_rng(0), 4000
    truth = VarianceParts(rendering=6.0, run=2.0)  # far from the cut at 0
    between = rng.normal(0, math.sqrt(truth.rendering), (repeats, 5, 1))
    values = between + rng.normal(0, math.sqrt(truth.run), (repeats, 5, 3))
    found = [variance_parts(dict(enumerate(grid))) for grid in values.tolist()]
    assert np.mean([parts.run for parts in found]) == pytest.approx(truth.run, rel=0.03)
    assert np.mean([parts.rendering for parts in found]) == pytest.approx(truth.rendering, rel=0.05)
    assert values.mean(axis=(1, 2)).std() == pytest.approx(truth.standard_error(5, 3), rel=0.03)
    errors = [estimate(dict(enumerate(grid))).error ** 2 for grid in values.tolist()]
    assert math.sqrt(np.mean(errors)) == pytest.approx(truth.standard_error(5, 3), rel=0.03)


def test_the_budget_is_the_cheapest_that_suffices() -> None:
    parts = VarianceParts(rendering=0.5, run=1.0)
    # error 0.5 at most: (0.5 + 1 / S) / D <= 0.25
    assert parts.budget() == (6, 1)
    assert parts.budget(rendering_cost=3.0) == (4, 2)
    assert parts.budget(visible=10.0) == (2, 1)
    for cost in (0.0, 0.5, 3.0, 20.0):
        renderings, runs = parts.budget(visible=0.7, rendering_cost=cost)
        assert parts.standard_error(renderings, runs) <= 0.35
        cheaper = [
            (d, s)
            for d in range(2, 60)
            for s in range(1, 20)
            if d * (cost + s) < renderings * (cost + runs) and parts.standard_error(d, s) <= 0.35
        ]
        assert cheaper == []
