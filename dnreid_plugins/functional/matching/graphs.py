"""Matching of day and night clusters by assignment on their centroids: CIA's DGM, PGM, Hungarian."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from dnreid_plugins.functional.matching.dictionary import (
    Scoring,
    cosine_similarity_matrix,
    graph_cost,
    mutual_information,
    ramped_threshold,
)
from dnreid_plugins.functional.types import Assignment

EmptyGraphPolicy = Literal["skip", "keep_last", "cap"]

# How far below the best score the ``cap`` policy puts the threshold.
CAP_MARGIN = 0.005


@dataclass(frozen=True)
class GraphMatching:
    """A dictionary-guided matching and the figures to log with it.

    Attributes:
        assignment: one-to-one, scores are ``M`` of Eq. 5 (at least ``threshold``).
        num_edges: pairs in the graph, ``M >= threshold``, before the assignment. 0 = empty graph.
        threshold: ``T_ada`` that was used, after a cap.
        best_similarity: largest cosine between the sides; nan when a side is empty.
    """

    assignment: Assignment
    num_edges: int
    threshold: float
    best_similarity: float


@torch.no_grad()
def dictionary_graph_matching(
    centroids_day: Tensor,
    centroids_night: Tensor,
    *,
    progress: float,
    scoring: Scoring = "continuous",
    alpha: float = 0.2,
    similarity_threshold: float = 0.5,
    threshold_start: float = 0.7,
    threshold_final: float = 1.15,
    penalty: float = 1.0,
    on_empty: EmptyGraphPolicy = "skip",
    second_round: bool = False,
    previous: Assignment | None = None,
) -> GraphMatching:
    """CIA's DGM (Eq. 4-7): minimum-cost assignment on the thresholded dictionary.

    A pair that the solver chooses although it is not an edge is always dropped afterwards: with an empty
    graph every cost is equal and the solver pairs clusters in index order. With the paper's numbers an edge of
    similarity S needs ``S >= 2.25 * progress - 1``, so the graph is empty for every S once ``progress``
    exceeds 8/9. ``on_empty`` decides what happens then:

    - ``skip``: no match; the loss built on it is zero.
    - ``keep_last``: ``previous``, which must already refer to this epoch's clusters (`carried_assignment`);
      no match if there is none.
    - ``cap``: the threshold never rises above the best score minus 0.005, nor falls below
      ``threshold_start``, so the ramp alone cannot empty the graph.

    Args:
        centroids_day: ``(C_day, D)``, need not be unit rows.
        centroids_night: ``(C_night, D)``; either side may be the larger, either may be empty.
        progress: completed share of training, in ``[0, 1]`` (``T_epo`` of Eq. 6).
        scoring: dictionary, see `mutual_information`.
        alpha: slope of the dictionary.
        similarity_threshold: ``S_tau`` of Eq. 5.
        threshold_start: ``T_ada`` at progress 0.
        threshold_final: ``T_ada`` at progress 1.
        penalty: ``G_p`` of Eq. 7.
        on_empty: see above.
        second_round: a cluster without a partner is matched with any cluster of the other side, along edges only, as
            in PGM; its partner keeps its own first partner (U9). Off in CIA.
        previous: matching for ``keep_last``.

    Raises:
        ValueError: for an unknown policy or scoring, a progress outside ``[0, 1]``, or a ``previous`` made
            for other numbers of clusters.
    """
    if on_empty not in get_args(EmptyGraphPolicy):
        raise ValueError(f"on_empty must be one of {get_args(EmptyGraphPolicy)}, got {on_empty!r}.")
    num_day, num_night = centroids_day.shape[0], centroids_night.shape[0]
    threshold = ramped_threshold(progress, 1.0, start=threshold_start, final=threshold_final)
    if num_day == 0 or num_night == 0:
        return GraphMatching(Assignment.empty(num_day, num_night), 0, threshold, float("nan"))
    similarity = cosine_similarity_matrix(centroids_day.double(), centroids_night.double())
    information = mutual_information(similarity, scoring=scoring, alpha=alpha, threshold=similarity_threshold)
    if on_empty == "cap":
        threshold = min(threshold, max(threshold_start, float(information.max()) - CAP_MARGIN))
    num_edges = int((information >= threshold).sum())
    best = float(similarity.max())
    if num_edges == 0 and on_empty == "keep_last" and previous is not None:
        _check_sizes(previous, num_day, num_night)
        return GraphMatching(previous, 0, threshold, best)
    cost = graph_cost(information, threshold, penalty=penalty)
    pairs, scores = _assigned_edges(cost, information, threshold)
    assignment = Assignment.from_pairs(pairs, scores, num_day, num_night)
    if second_round:
        _match_leftovers(assignment, cost, information, threshold)
    return GraphMatching(assignment, num_edges, threshold, best)


@torch.no_grad()
def hungarian_matching(similarity: Tensor) -> Assignment:
    """One-to-one matching with the largest total similarity; on the larger side some clusters have no partner.

    Args:
        similarity: ``(C_day, C_night)``, finite, any real values; also the scores of the result.
    """
    pairs = _assigned_pairs(-similarity)
    scores = similarity.cpu()[pairs[:, 0], pairs[:, 1]]
    return Assignment.from_pairs(pairs, scores, similarity.shape[0], similarity.shape[1])


@torch.no_grad()
def progressive_graph_matching(
    centroids_day: Tensor, centroids_night: Tensor, *, max_rounds: int | None = None
) -> Assignment:
    """PGM: rounds of Hungarian matching at cost ``1 / exp(cos)`` until the larger side is covered.

    Round 1 gives every cluster of the smaller side one of the larger. Each later round matches the remaining clusters
    of the larger side with the whole smaller side, once each. The released code has two rounds and gives no result if
    day has fewer clusters than night; here the sides swap roles by size.

    Args:
        centroids_day: ``(C_day, D)``, need not be unit rows.
        centroids_night: ``(C_night, D)``.
        max_rounds: stop after this many rounds and leave the rest without a partner; None = never. The
            number of rounds needed is the ratio of the sides, rounded up.

    Returns:
        Many-to-one assignment: the smaller side names its partners of round 1, the larger side its only
        partner. Scores are cosines. Empty if a side is empty.

    Raises:
        ValueError: if ``max_rounds`` is below 1.
    """
    if max_rounds is not None and max_rounds < 1:
        raise ValueError(f"max_rounds must be at least 1 or None, got {max_rounds}.")
    num_day, num_night = centroids_day.shape[0], centroids_night.shape[0]
    result = Assignment.empty(num_day, num_night)
    if num_day == 0 or num_night == 0:
        return result
    similarity = cosine_similarity_matrix(centroids_day.double(), centroids_night.double()).cpu()
    small, large = (result.night_to_day, result.day_to_night), (result.night_score, result.day_score)
    if num_day < num_night:
        similarity, small, large = similarity.T, small[::-1], large[::-1]
    (small_to_large, large_to_small), (small_score, large_score) = small, large
    cost = torch.exp(-similarity)
    waiting = torch.arange(cost.shape[0])
    rounds = 0
    while waiting.numel() > 0 and rounds != max_rounds:
        pairs = _assigned_pairs(cost[waiting])
        big, little = waiting[pairs[:, 0]], pairs[:, 1]
        large_to_small[big], large_score[big] = little, similarity[big, little].float()
        if rounds == 0:
            small_to_large[little], small_score[little] = big, similarity[big, little].float()
        waiting = waiting[large_to_small[waiting] < 0]
        rounds += 1
    return result


def _assigned_edges(cost: Tensor, information: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Pairs ``(P, 2)`` of the minimum-cost assignment that are edges, and their scores."""
    pairs = _assigned_pairs(cost)
    scores = information.cpu()[pairs[:, 0], pairs[:, 1]]
    kept = scores >= threshold
    return pairs[kept], scores[kept]


def _match_leftovers(assignment: Assignment, cost: Tensor, information: Tensor, threshold: float) -> None:
    """Match clusters without a partner with any cluster of the other side, in place; each side separately."""
    for domain, costs, scores in ((0, cost, information), (1, cost.T, information.T)):
        partner, score = assignment.partner(domain)
        alone = torch.nonzero(partner < 0).flatten()
        if len(alone) == 0 or costs.shape[1] == 0:
            continue
        index = alone.to(costs.device)
        pairs, found = _assigned_edges(costs[index], scores[index], threshold)
        partner[alone[pairs[:, 0]]], score[alone[pairs[:, 0]]] = pairs[:, 1], found.float()


def _assigned_pairs(cost: Tensor) -> Tensor:
    """``(P, 2)`` int64 (row, column) pairs of the minimum-cost assignment, P = the smaller side."""
    rows, columns = linear_sum_assignment(cost.detach().double().cpu().numpy())
    return torch.stack([torch.from_numpy(rows), torch.from_numpy(columns)], dim=1).long()


def _check_sizes(previous: Assignment, num_day: int, num_night: int) -> None:
    sizes = (previous.day_to_night.shape[0], previous.night_to_day.shape[0])
    if sizes != (num_day, num_night):
        raise ValueError(
            f"previous matches {sizes[0]} day and {sizes[1]} night clusters, but this epoch has {num_day} "
            f"and {num_night}; translate it with carried_assignment first."
        )
