"""The transport matcher on an epoch's clusters: the worked figure, unequal and empty sides, swapped domains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from head_world import part, unclustered

from dnreid_plugins.functional.types import Clusters, Epoch
from dnreid_plugins.modeling.matchers import SinkhornMatcher

SIMILARITY = torch.tensor([[0.9, 0.8], [0.85, 0.1], [0.2, 0.15]])


def rows(centroids: torch.Tensor) -> Clusters:
    count = len(centroids)
    return Clusters(torch.arange(count), centroids, centroids, torch.arange(count))


def test_it_is_the_matching_of_the_reference() -> None:
    """Rows whose products are the worked table."""
    night = torch.eye(5)[:2]
    rest = (1 - SIMILARITY.square().sum(dim=1)).clamp(min=0).sqrt()
    day = torch.cat([SIMILARITY, rest[:, None] * torch.eye(3)], dim=1)
    matched, figures = SinkhornMatcher().match(Epoch.of(rows(day), rows(night), 1, 2))
    assert matched.day_to_night.tolist() == [1, 0, 1] and matched.night_to_day.tolist() == [1, 2]
    assert figures == {}
    # With hardly any entropy the plan is that of the least cost: day cluster 1 goes to night cluster 0 alone.
    sharp, _ = SinkhornMatcher(reg=0.01).match(Epoch.of(rows(day), rows(night), 1, 2))
    assert float(sharp.day_score[1]) > 0.999 > float(matched.day_score[1])


@pytest.mark.parametrize(("day", "night"), [([0, 0, 1], [0, 1, 2, 2]), ([0, 1, 2, 3], [0, 1]), ([0], [0, 1])])
def test_swapping_the_domains_swaps_the_answer_and_all_are_covered(day: list[int], night: list[int]) -> None:
    one, other = part(day, 0), part(night, len(day))
    matched, _ = SinkhornMatcher().match(Epoch.of(one, other, 1, 2))
    swapped, _ = SinkhornMatcher().match(Epoch.of(other, one, 1, 2))
    assert torch.equal(matched.day_to_night, swapped.night_to_day)
    assert torch.equal(matched.night_to_day, swapped.day_to_night)
    assert int(matched.day_to_night.min()) >= 0 and int(matched.night_to_day.min()) >= 0


def test_an_empty_side_gives_no_pair() -> None:
    full, empty = part([0, 0, 1], 0), unclustered(part([0, 0], 3))
    for day, night in ((full, empty), (empty, full), (empty, replace(empty))):
        matched, _ = SinkhornMatcher().match(Epoch.of(day, night, 1, 2))
        assert matched.day_to_night.tolist() == [-1] * day.num_clusters
        assert matched.night_to_day.tolist() == [-1] * night.num_clusters


def test_equal_sides_of_one_place_match_themselves() -> None:
    centroids = F.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    matched, _ = SinkhornMatcher(reg=0.05).match(Epoch.of(rows(centroids), rows(centroids), 1, 2))
    assert matched.day_to_night.tolist() == matched.night_to_day.tolist() == list(range(6))
