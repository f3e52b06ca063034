"""The value objects: a matching whose two maps name different pairs, cluster 0, the names of a domain."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch

from dnreid_plugins.functional.types import Assignment, Clusters, Domain, Epoch, StreamName

#: Many to one: day cluster 2 has a partner that goes with day cluster 0, night cluster 1 has none.
MANY = Assignment(
    day_to_night=torch.tensor([0, -1, 0]),
    night_to_day=torch.tensor([0, -1, 1]),
    day_score=torch.tensor([0.5, 0.0, 0.25]),
    night_score=torch.tensor([0.5, 0.0, 2.0]),
)


def test_every_pair_that_either_map_names_is_listed_once() -> None:
    assert MANY.pairs().tolist() == [[0, 0], [1, 2], [2, 0]]
    only_night = Assignment(torch.tensor([-1]), torch.tensor([0]), torch.zeros(1), torch.ones(1))
    assert only_night.pairs().tolist() == [[0, 0]]
    assert Assignment.empty(2, 3).pairs().shape == (0, 2)


def test_unit_scores_are_one_where_there_is_a_partner() -> None:
    unit = MANY.with_unit_scores()
    assert unit.day_score.tolist() == [1, 0, 1] and unit.night_score.tolist() == [1, 0, 1]
    for domain in Domain:
        assert torch.equal(unit.partner(domain)[0], MANY.partner(domain)[0])


@pytest.mark.parametrize("name", ["day", "Night", 0, 1, Domain.DAY, "NIGHT"])
def test_a_domain_goes_by_its_name_or_number(name: str | int) -> None:
    domain = Domain.named(name)
    assert domain.word == ("night" if str(name).lower() in ("night", "1") else "day")
    assert domain.other.word != domain.word and domain.other.other is domain


@pytest.mark.parametrize("name", ["noon", "", 2, -1])
def test_no_domain(name: str | int) -> None:
    with pytest.raises(ValueError, match="it is 'day'"):
        Domain.named(name)


def clusters(labels: list[int], indices: list[int]) -> Clusters:
    """Pseudo labels of the images ``indices``; features do not matter here."""
    count = max(labels, default=-1) + 1
    rows = torch.zeros(len(labels), 2)
    return Clusters(torch.tensor(labels).long(), rows, torch.zeros(count, 2), torch.tensor(indices).long())


def epoch(day: list[int], night: list[int], **other: list[int]) -> Epoch:
    """Day images come first in the canonical list; ``other`` labels all images."""
    own = {"day": clusters(day, [*range(len(day))])}
    own["night"] = clusters(night, [*range(len(day), len(day) + len(night))])
    every = [*range(len(day) + len(night))]
    return Epoch(1, 1, {**own, **{name: clusters(labels, every) for name, labels in other.items()}})


def test_a_mixed_cluster_has_images_of_both_domains() -> None:
    # cluster 0 has one image of either, 1 two by day, 2 two by night, 3 two of either; outliers count for none
    found = epoch([0] * 6, [0] * 6, joint=[0, 1, 1, 3, 3, -1, 0, 2, 2, 3, 3, -1]).mixed()
    assert found.dtype == torch.bool and found.tolist() == [True, False, False, True]


@pytest.mark.parametrize(
    ("day", "night", "joint", "streams"),
    [
        pytest.param([0, 0], [0, 0], [0, 1, 0, 1], {"domains", "joint", "union"}, id="all"),
        pytest.param([0, 0], [0, 0], [0, 0, 1, 1], {"domains", "union"}, id="no mixed cluster"),
        pytest.param(
            [0, 0], [-1, -1], [0, 0, 0, 0], {"domains", "joint", "union"}, id="day alone, one cluster"
        ),
        pytest.param([-1, -1], [0, 0], [-1] * 4, {"domains"}, id="night alone"),
        pytest.param([-1, -1], [-1, -1], [-1] * 4, set(), id="nothing"),
        pytest.param([0, 1], [0, 1], None, {"domains"}, id="no joint clusters"),
    ],
)
def test_what_there_are_batches_of(
    day: list[int], night: list[int], joint: list[int] | None, streams: set[str]
) -> None:
    there = epoch(day, night, **({} if joint is None else {"joint": joint}))
    assert {name for name in get_args(StreamName) if there.has_batches(name)} == streams


def test_an_image_outside_of_the_clusters_has_none() -> None:
    there = epoch([0, -1, 1], [1, 0])
    assert there.targets("day", torch.tensor([4, 2, 1, 0, 3])).tolist() == [-1, 1, -1, 0, -1]
    assert there.targets("night", torch.tensor([0, 3, 4])).tolist() == [-1, 1, 0]


def test_an_epoch_has_its_domains_and_the_matching_of_the_last_head() -> None:
    day, night = clusters([0, 1], [0, 1]), clusters([0, -1], [2, 3])
    plain = Epoch.of(day, night, 3, 10)
    assert (plain.number, plain.last, plain.matching) == (3, 10, None)
    assert plain.day is plain[Domain.DAY] is day and plain.night is plain[1] is night
    assert (day.num_clusters, night.num_clusters) == (2, 1)
    found = [Assignment.empty(2, 1) for _ in range(3)]
    matched = replace(plain, matchings=dict(zip("abc", found, strict=True)))
    assert matched.matching is found[2]
