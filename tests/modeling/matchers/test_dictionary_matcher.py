"""The dictionary matcher over the epochs: what it keeps, across a checkpoint too, and where its ramp starts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from head_world import build, configured, parts_of, renumbered, unclustered, world

from dnreid_plugins.functional.types import Clusters, Epoch
from dnreid_plugins.modeling.matchers import DictionaryMatcher
from dnreid_plugins.modeling.parts import Parts


def late(epoch: Epoch, day: Clusters | None = None) -> Epoch:
    """The last epoch of 100: the ramp is beyond every score."""
    return Epoch.of(day or epoch.day, epoch.night, 100, 100)


def keeping() -> Parts:
    return parts_of(build("DGM", ON_EMPTY="keep_last"))


def resumed(parts: Parts) -> Parts:
    """As a checkpoint brings them back."""
    other = keeping()
    other.losses.load_state_dict(parts.losses.state_dict())
    return other


def partners(parts: Parts, epoch: Epoch) -> list[int]:
    parts.begin_epoch(epoch)
    matching = parts.matching("DGM")
    assert matching is not None
    return matching.day_to_night.tolist()


def test_the_last_matching_is_kept_across_a_renumbering() -> None:
    epoch = world([0, 0, 1, 1], [0, 0, 1, 1]).epoch
    parts = keeping()
    assert partners(parts, epoch) == [0, 1]
    after = late(epoch, renumbered(epoch.day, [1, 0]))
    assert partners(keeping(), after) == [-1, -1]  # nothing to keep
    for one in (resumed(parts), parts):
        assert partners(one, after) == [1, 0]


@pytest.mark.parametrize("resumes", [False, True])
def test_the_last_matching_is_kept_across_an_epoch_without_clusters(resumes: bool) -> None:
    epoch = world([0, 0, 1, 1], [0, 0, 1, 1]).epoch
    parts = keeping()
    parts.begin_epoch(epoch)
    nothing, turned = unclustered(epoch.day), renumbered(epoch.day, [1, 0])
    for day, expected in ((nothing, []), (turned, [1, 0])):
        if resumes:  # a checkpoint between two epochs and one inside an epoch, whose start is replayed
            parts = resumed(parts)
            parts.begin_epoch(late(epoch, day))
            parts = resumed(parts)
        assert partners(parts, late(epoch, day)) == expected


def test_a_run_from_the_weights_of_another_keeps_no_matching() -> None:
    epoch = world([0, 0, 1, 1], [0, 0, 1, 1]).epoch
    parts = keeping()
    parts.begin_epoch(epoch)
    parts.forget()
    assert partners(parts, late(epoch)) == [-1, -1]


def test_what_is_kept_does_not_follow_a_change_of_the_labels() -> None:
    epoch = world([0, 0, 1, 1], [0, 0, 1, 1]).epoch
    parts = keeping()
    parts.begin_epoch(epoch)
    before = {name: value.clone() for name, value in parts.losses.state_dict().items()}
    epoch.day.labels.fill_(1)
    after = parts.losses.state_dict()
    assert len(before) == 6 and all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("weight", [((6, 0.3),), ((1, 0.0), (6, 0.3))])
def test_progress_of_the_stage_starts_at_its_first_epoch(weight: tuple) -> None:
    thresholds = {}
    for progress in ("global", "stage"):
        for number in (1, 5, 6, 8):
            parts = parts_of(configured("DGM", WEIGHT=weight, PROGRESS=progress, MATCH_ALWAYS=True))
            figures = parts.begin_epoch(world([0, 0], [0, 0], number).epoch)["DGM"]
            thresholds[progress, number] = figures["threshold"]
    for number, over in ((1, 0.0), (5, 0.0), (6, 0.0), (8, 2 / 5)):
        assert thresholds["stage", number] == pytest.approx(0.7 + 0.45 * over)
        assert thresholds["global", number] == pytest.approx(0.7 + 0.45 * (number - 1) / 10)


def test_the_figures_are_those_of_the_graph_and_of_the_matched_pairs() -> None:
    """Cosines 0.8 and 0.6, first epoch of 10: T is the start, both pairs score 1 + 0.2 (S - 0.5)."""
    epoch = world([0, 0, 1, 1], [0, 0, 1, 1]).epoch
    day = torch.eye(2, 4)
    night = torch.tensor([[0.8, 0.0, 0.6, 0.0], [0.0, 0.6, 0.0, 0.8]])
    epoch = Epoch.of(replace(epoch.day, centroids=day), replace(epoch.night, centroids=night), 1, 10)
    matcher = DictionaryMatcher(threshold_start=0.5)
    found, figures = matcher.match(epoch)
    assert found.day_to_night.tolist() == [0, 1]
    expected = {"edges": 2.0, "threshold": 0.5, "best_similarity": 0.8, "mean_score": (1.06 + 1.02) / 2}
    assert figures == pytest.approx(expected)
    late = Epoch.of(epoch.day, epoch.night, 10, 10)
    assert matcher.match(late)[1]["mean_score"] == 0.0  # an empty graph
