"""The value objects: a matching whose two maps name different pairs, cluster 0, the names of a domain."""

from __future__ import annotations

import pytest
import torch

from dnreid_plugins.functional.types import Assignment, Domain

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
