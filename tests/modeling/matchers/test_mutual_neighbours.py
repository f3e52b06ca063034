"""The nearest mutual neighbour of each cluster against loops."""

from __future__ import annotations

import pytest
import torch

from dnreid_plugins.modeling.matchers.mutual import nearest_positive


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
