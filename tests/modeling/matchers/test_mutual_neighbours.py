"""The nearest mutual neighbour of each cluster against loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dnreid_plugins.modeling.matchers.mutual import MutualNeighbours, nearest_positive


@pytest.mark.parametrize(("day", "night"), [(5, 3), (1, 4), (0, 3), (3, 0)])
def test_nearest_positive_equals_loops(day: int, night: int) -> None:
    generator = torch.Generator().manual_seed(day * 10 + night)
    similarity = torch.rand(day, night, generator=generator)
    positives = torch.rand(day, night, generator=generator) < 0.5
    found = nearest_positive(similarity, positives)
    for i in range(day):
        allowed = [j for j in range(night) if positives[i, j]]
        best = max(allowed, key=lambda j: float(similarity[i, j])) if allowed else -1
        assert int(found.day_to_night[i]) == best
        assert float(found.day_score[i]) == (float(similarity[i, best]) if allowed else 0.0)
    for j in range(night):
        allowed = [i for i in range(day) if positives[i, j]]
        assert int(found.night_to_day[j]) == (
            max(allowed, key=lambda i: float(similarity[i, j])) if allowed else -1
        )


def test_the_figures_count_neighbours_per_cluster_of_both_sides() -> None:
    """Day 0 and night 0 are each other's nearest; day 1 and night 1 want the other side's number 0."""
    day, night = torch.tensor([[1.0, 0.0], [0.6, 0.8]]), torch.tensor([[1.0, 0.0], [0.8, -0.6], [0.0, -1.0]])
    epoch: Any = SimpleNamespace(day=SimpleNamespace(centroids=day), night=SimpleNamespace(centroids=night))
    found, figures = MutualNeighbours(top_k=1).match(epoch)
    assert found.day_to_night.tolist() == [0, -1] and found.night_to_day.tolist() == [0, -1, -1]
    assert figures == {"positives": pytest.approx(2 / 5), "hard_negatives": pytest.approx(3 / 5)}
    nothing: Any = SimpleNamespace(day=SimpleNamespace(centroids=day[:0]), night=epoch.night)
    assert MutualNeighbours(top_k=1).match(nothing)[1] == {"positives": 0.0, "hard_negatives": 0.0}
