"""Bridging's Cross-Prototype Matching Learning (Eq. 13): InfoNCE over mutual neighbours of the other domain.

The released code evaluates it between memory rows, which carry no gradient (`released_cpml`). Three variants
train something: queries from the batch (`instance_cpml`, the default; `batch_centroid_cpml`) or from
classifier rows (`row_cpml`). In all but the released one the positive is part of the denominator and an anchor
without a hard negative contributes nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.grouping import cluster_means
from dnreid_plugins.functional.losses.contrast import zero_with_graph
from dnreid_plugins.functional.matching.mutual_topk import NeighbourPartition
from dnreid_plugins.functional.precision import in_full_precision


@in_full_precision
def instance_cpml(
    features_day: Tensor,
    targets_day: Tensor,
    features_night: Tensor,
    targets_night: Tensor,
    rows_day: Tensor,
    rows_night: Tensor,
    partition: NeighbourPartition,
    *,
    temperature: float = 0.07,
) -> Tensor:
    """CPML with batch samples as queries and the other domain's memory rows as keys.

    Per sample of a cluster with positives and hard negatives: the mean over its positives of
    ``-log(e^pos / (e^pos + sum e^hard))``, one positive per term. Then the mean over such samples, and half
    the sum of both directions.

    Args:
        features_day: ``(B_day, D)`` unit rows; carry the gradient.
        targets_day: ``(B_day,)`` int64 in ``-1 .. C_day-1``; -1 contributes nothing.
        features_night: ``(B_night, D)`` unit rows.
        targets_night: ``(B_night,)`` int64.
        rows_day: ``(C_day, D)`` unit rows, clusters only (no outlier rows).
        rows_night: ``(C_night, D)`` unit rows.
        partition: masks ``(C_day, C_night)`` from `mutual_topk_partition`.
        temperature: divides the cosine; > 0 (released code: 0.07).

    Returns:
        Scalar; zero with a graph when no sample has both a positive and a hard negative.

    Raises:
        ValueError: if the masks do not fit the rows or ``temperature`` is not positive.
    """
    _check(rows_day, rows_night, partition, temperature)
    day = _query_loss(
        features_day, targets_day, rows_night, partition.positives, partition.hard_day, temperature
    )
    night = _query_loss(
        features_night, targets_night, rows_day, partition.positives.T, partition.hard_night.T, temperature
    )
    return 0.5 * (day + night)


@in_full_precision
def batch_centroid_cpml(
    features_day: Tensor,
    targets_day: Tensor,
    features_night: Tensor,
    targets_night: Tensor,
    rows_day: Tensor,
    rows_night: Tensor,
    partition: NeighbourPartition,
    *,
    temperature: float = 0.07,
) -> Tensor:
    """`instance_cpml` with one query per cluster in the batch: the normalised mean of its features."""
    clusters_day, means_day = cluster_means(features_day, targets_day)
    clusters_night, means_night = cluster_means(features_night, targets_night)
    return instance_cpml(
        F.normalize(means_day, dim=1),
        clusters_day,
        F.normalize(means_night, dim=1),
        clusters_night,
        rows_day,
        rows_night,
        partition,
        temperature=temperature,
    )


@in_full_precision
def row_cpml(
    rows_day: Tensor, rows_night: Tensor, partition: NeighbourPartition, *, temperature: float = 0.07
) -> Tensor:
    """CPML between two sets of rows, mean over all mutual pairs (Eq. 13). For classifier rows: both learn.

    Args:
        rows_day: ``(C_day, D)``, brought to unit length here; carries gradient if it can.
        rows_night: ``(C_night, D)``.
        partition: masks ``(C_day, C_night)``.
        temperature: divides the cosine; > 0.

    Returns:
        Half the sum of both directions, each the mean over its pairs whose anchor has a hard negative.
    """
    _check(rows_day, rows_night, partition, temperature)
    logits = _cosine_logits(rows_day, rows_night, temperature)
    losses = []
    for table, positives, hard in _both_directions(logits, partition):
        terms, usable = _pair_terms(table, positives, hard)
        losses.append(terms.sum() / usable.sum().clamp(min=1))
    return 0.5 * (losses[0] + losses[1])


@torch.no_grad()
@in_full_precision
def released_cpml(
    rows_day: Tensor, rows_night: Tensor, partition: NeighbourPartition, *, temperature: float = 0.07
) -> Tensor:
    """The value that the released code prints. **No gradient**: it trains nothing, whatever its weight.

    As `row_cpml`, but an anchor without a hard negative is compared with all other prototypes while the
    positive is left out of the denominator, so such a term has no lower bound. With a single prototype
    there is nothing to compare with (the released value is minus infinity); such a pair is left out.
    """
    _check(rows_day, rows_night, partition, temperature)
    logits = _cosine_logits(rows_day, rows_night, temperature)
    total = logits.new_zeros(())
    for table, positives, hard in _both_directions(logits, partition):
        terms, usable = _pair_terms(table, positives, hard)
        bare = torch.nonzero(positives & ~usable)
        others = table[bare[:, 0]].scatter(1, bare[:, 1:], float("-inf"))
        unbounded = torch.logsumexp(others, dim=1) - table[bare[:, 0], bare[:, 1]]
        unbounded = unbounded[torch.isfinite(unbounded)]
        count = usable.sum() + unbounded.numel()
        total = total + (terms.sum() + unbounded.sum()) / count.clamp(min=1)
    return 0.5 * total


def _pair_terms(logits: Tensor, positives: Tensor, hard: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of every (anchor, positive) pair, ``(A, K)``, 0 elsewhere, and the mask of the pairs that count.

    ``-log(e^p / (e^p + sum e^h)) = softplus(logsumexp(h) - p)``: one log-sum per anchor serves all its pairs.
    """
    has_hard = hard.any(dim=1, keepdim=True)
    usable = positives & has_hard
    # An anchor without hard negatives would be a log-sum over nothing: a finite placeholder, masked out below.
    candidates = torch.where(has_hard, logits.masked_fill(~hard, float("-inf")), 0.0)
    against = torch.logsumexp(candidates, dim=1, keepdim=True)
    terms = F.softplus(against - logits, threshold=50.0)
    return torch.where(usable, terms, 0.0), usable


def _query_loss(
    queries: Tensor, clusters: Tensor, keys: Tensor, positives: Tensor, hard: Tensor, temperature: float
) -> Tensor:
    """One direction: mean over queries of the mean over the positives of their cluster."""
    if positives.numel() == 0:
        return zero_with_graph(queries)
    cluster = clusters.clamp(min=0)
    logits = queries @ keys.to(queries.dtype).T / temperature
    wanted = positives.to(queries.device)[cluster] & (clusters >= 0)[:, None]
    terms, usable = _pair_terms(logits, wanted, hard.to(queries.device)[cluster])
    per_query = terms.sum(dim=1) / usable.sum(dim=1).clamp(min=1)
    return per_query.sum() / usable.any(dim=1).sum().clamp(min=1)


def _cosine_logits(rows_day: Tensor, rows_night: Tensor, temperature: float) -> Tensor:
    return F.normalize(rows_day, dim=1) @ F.normalize(rows_night, dim=1).T / temperature


def _both_directions(
    logits: Tensor, partition: NeighbourPartition
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """(logits, positives, hard negatives) with day anchors as rows, then with night anchors as rows."""
    positives, hard_day, hard_night = (mask.to(logits.device) for mask in partition)
    return (logits, positives, hard_day), (logits.T, positives.T, hard_night.T)


def _check(rows_day: Tensor, rows_night: Tensor, partition: NeighbourPartition, temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; the released code uses 0.07.")
    sizes = (rows_day.shape[0], rows_night.shape[0])
    if tuple(partition.positives.shape) != sizes:
        raise ValueError(
            f"partition is for {tuple(partition.positives.shape)} clusters but there are {sizes} rows; pass "
            f"the rows of the clusters it was made from, without outlier rows."
        )
