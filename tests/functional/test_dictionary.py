"""The dictionary, the ramp and the graph cost against worked examples."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dnreid_plugins.functional.matching.dictionary import (
    cosine_similarity_matrix,
    graph_cost,
    mutual_information,
    ramped_threshold,
)


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def test_similarity_is_the_cosine_whatever_the_lengths() -> None:
    day, night = row(3.0, 4.0), torch.tensor([[6.0, 8.0], [-4.0, 3.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(cosine_similarity_matrix(day, night), row(1.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("scoring", "expected"),
    [
        # S:          -0.5   0.0  0.49    0.5   0.6   0.68   1.0
        ("continuous", (-0.1, 0.0, 0.098, 1.0, 1.02, 1.036, 1.1)),
        ("discrete", (-0.1, 0.0, 0.08, 1.0, 1.02, 1.02, 1.1)),
        ("fixed", (0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0)),
        ("direct", (-0.5, 0.0, 0.49, 0.5, 0.6, 0.68, 1.0)),
    ],
)
def test_worked_scores(scoring: str, expected: tuple[float, ...]) -> None:
    similarity = row(-0.5, 0.0, 0.49, 0.5, 0.6, 0.68, 1.0)
    got = mutual_information(similarity, scoring=scoring)  # type: ignore[arg-type]
    torch.testing.assert_close(got, row(*expected))


def test_continuous_equals_the_loop() -> None:
    similarity = torch.rand(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    got = mutual_information(similarity, alpha=0.3, threshold=0.4)
    for i in range(7):
        for j in range(5):
            s = float(similarity[i, j])
            want = 1 + 0.3 * (s - 0.4) if s >= 0.4 else 0.3 * s
            assert float(got[i, j]) == pytest.approx(want, abs=1e-12)


def test_discrete_has_few_values_and_never_exceeds_the_continuous_score() -> None:
    similarity = torch.linspace(-1, 1, 2001, dtype=torch.float64)[None]
    discrete = mutual_information(similarity, scoring="discrete")
    assert len(torch.unique(torch.round(discrete, decimals=9))) == 21
    assert bool((discrete <= mutual_information(similarity) + 1e-6).all())


def test_ramp_runs_from_start_to_final() -> None:
    assert ramped_threshold(0, 100) == pytest.approx(0.7)
    assert ramped_threshold(50, 100) == pytest.approx(0.925)
    assert ramped_threshold(100, 100) == pytest.approx(1.15)
    assert ramped_threshold(1, 4, start=0.0, final=2.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("epoch", "max_epoch"), [(-1, 10), (11, 10), (0, 0)])
def test_ramp_refuses_an_epoch_outside_the_run(epoch: int, max_epoch: int) -> None:
    with pytest.raises(ValueError, match=f"got {epoch} of {max_epoch}"):
        ramped_threshold(epoch, max_epoch)


def test_cost_is_one_minus_score_on_edges_and_the_penalty_elsewhere() -> None:
    got = graph_cost(row(0.08, 1.0, 1.05), 1.0, penalty=0.4)
    torch.testing.assert_close(got, row(0.4, 0.0, -0.05))
    torch.testing.assert_close(graph_cost(row(0.08, 1.0), 1.0), row(1.0, 0.0))


def test_unknown_scoring_is_refused() -> None:
    with pytest.raises(ValueError, match="got 'smooth'"):
        mutual_information(row(0.1), scoring="smooth")  # type: ignore[arg-type]


@pytest.mark.parametrize(("scoring", "last"), [("continuous", 0.888), ("direct", 0.666), ("fixed", 0.666)])
def test_where_the_ramp_leaves_no_edge(scoring: str, last: float) -> None:
    best = mutual_information(row(1.0), scoring=scoring)  # type: ignore[arg-type]
    for progress, edge in ((last, True), (last + 0.002, False)):
        assert bool(best >= ramped_threshold(progress, 1.0)) == edge
