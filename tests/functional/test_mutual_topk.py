"""The mutual top-k partition against its set definition."""

from __future__ import annotations

import pytest
import torch

from dnreid_plugins.functional.matching.mutual_topk import mutual_topk_partition


@pytest.mark.parametrize(("num_day", "num_night"), [(1, 1), (1, 5), (5, 1), (6, 4), (4, 6), (0, 3), (3, 0)])
@pytest.mark.parametrize("k", [1, 3, 4, 5, 15])
def test_equals_the_sets_of_the_paper(num_day: int, num_night: int, k: int) -> None:
    similarity = torch.rand(num_day, num_night, generator=torch.Generator().manual_seed(k))
    table = similarity.tolist()
    near_day = [set(sorted(range(num_night), key=lambda j: -table[i][j])[:k]) for i in range(num_day)]
    near_night = [set(sorted(range(num_day), key=lambda i: -table[i][j])[:k]) for j in range(num_night)]
    got = mutual_topk_partition(similarity, k)
    for i in range(num_day):
        for j in range(num_night):
            mutual = j in near_day[i] and i in near_night[j]
            assert bool(got.positives[i, j]) == mutual
            assert bool(got.hard_day[i, j]) == (j in near_day[i] and not mutual)
            assert bool(got.hard_night[i, j]) == (i in near_night[j] and not mutual)


def test_among_equals_the_lower_number_is_nearer() -> None:
    got = mutual_topk_partition(torch.ones(2, 3), 1)
    assert got.positives.tolist() == [[True, False, False], [False, False, False]]
    assert got.hard_day.tolist() == [[False, False, False], [True, False, False]]
    assert got.hard_night.tolist() == [[False, True, True], [False, False, False]]


def test_k_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        mutual_topk_partition(torch.ones(2, 2), 0)


@pytest.mark.parametrize("seed", range(5))
def test_with_one_neighbour_no_cluster_has_a_positive_and_a_hard_negative(seed: int) -> None:
    similarity = torch.rand(7, 9, generator=torch.Generator().manual_seed(seed))
    found = mutual_topk_partition(similarity, 1)
    assert bool(found.positives.any()) and bool(found.hard_day.any() or found.hard_night.any())
    assert not (found.positives.any(dim=1) & found.hard_day.any(dim=1)).any()
    assert not (found.positives.any(dim=0) & found.hard_night.any(dim=0)).any()
