"""Clusters that hold images of the same joint cluster go together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from head_world import world

from dnreid_plugins.functional.types import Epoch
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.modeling.matchers import JointMatcher


def epoch_of(day: list[int], night: list[int], joint: list[int]) -> Epoch:
    """Clusters of day images, night images and all of them together."""
    here = world(day, night).epoch
    features = torch.cat([here.day.features, here.night.features])
    together = make_clusters(torch.tensor(joint), features, torch.arange(len(joint)))
    return replace(here, clusters={**here.clusters, "joint": together})


def test_most_shared_images_win_one_to_one() -> None:
    # Day cluster 0 is joint 1, day cluster 1 joint 0; day 2 is joint 1 as well, with fewer images.
    day, night = [0, 0, 0, 1, 1, 2, -1], [0, 0, 1, 1, 2, 2]
    joint = [1, 1, 0, 0, 0, 1, 2, 0, 0, 1, 1, 2, -1]
    found, _ = JointMatcher().match(epoch_of(day, night, joint))
    assert found.day_to_night.tolist() == [1, 0, -1] and found.night_to_day.tolist() == [1, 0, -1]
    swapped, _ = JointMatcher().match(epoch_of(night, day, joint[7:] + joint[:7]))
    assert torch.equal(swapped.day_to_night, found.night_to_day)
    assert torch.equal(swapped.night_to_day, found.day_to_night)


@pytest.mark.parametrize(
    ("day", "night", "joint"), [([0, 0], [-1, -1], [0, 0, 0, 0]), ([-1], [0, 0], [-1, -1, -1])]
)
def test_an_empty_side_has_no_pair(day: list[int], night: list[int], joint: list[int]) -> None:
    found, _ = JointMatcher().match(epoch_of(day, night, joint))
    assert len(found.pairs()) == 0
