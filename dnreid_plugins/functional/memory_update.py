"""How a batch updates the rows of a prototype memory. Pure: the caller decides when, and stores the result."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from dnreid_plugins.functional.grouping import cluster_means

UpdatePolicy = Literal["sequential", "mean", "hardest"]


@torch.no_grad()
def updated_rows(
    rows: Tensor,
    features: Tensor,
    targets: Tensor,
    *,
    momentum: float,
    policy: UpdatePolicy = "sequential",
    judge: Tensor | None = None,
) -> Tensor:
    """Memory rows after one batch: ``row <- norm(momentum * row + (1 - momentum) * instance)``.

    What ``instance`` is, per cluster present in the batch:

    - ``sequential``: every instance in turn, in batch order, normalising after each (ADCA, ClusterContrast
      default). With momentum 0.1 the last instance of the batch dominates.
    - ``mean``: once, the plain mean of the cluster's instances.
    - ``hardest``: once, the instance least similar to the row as it was before the batch (Bridging Eq. 5);
      the first in batch order among equals.

    Args:
        rows: ``(C, D)`` unit rows.
        features: ``(B, D)`` unit rows; no gradient is recorded.
        targets: ``(B,)`` int64 in ``-1 .. C-1``; -1 is ignored; repeats are the normal case.
        momentum: share of the old row, in ``[0, 1]``; 1 changes nothing, 0 forgets the old row.
        policy: see above.
        judge: ``(C, D)`` rows by which ``hardest`` chooses; None = ``rows``.

    Returns:
        New ``(C, D)`` unit rows in the dtype of ``rows``, whose storage is not shared. Rows of clusters
        absent from the batch are bit-equal. A row whose update would have length zero (an instance exactly
        opposite) stays as it was.

    Raises:
        ValueError: for a momentum outside ``[0, 1]`` or an unknown policy.
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum must lie in [0, 1], got {momentum}; it is the share of the old row.")
    if policy not in get_args(UpdatePolicy):
        raise ValueError(f"policy must be one of {get_args(UpdatePolicy)}, got {policy!r}.")
    result = rows.clone()
    valid = targets >= 0
    features, targets = features[valid].to(_work_dtype(rows)), targets[valid]
    if targets.numel() == 0:
        return result
    if policy == "mean":
        clusters, means = cluster_means(features, targets)
        return _blend(result, clusters, means, momentum)
    if policy == "hardest":
        chosen_by = rows if judge is None else judge
        similarity = (features * chosen_by[targets].to(features.dtype)).sum(dim=1)
        hardest = _first_of_each_cluster(targets, similarity)
        return _blend(result, targets[hardest], features[hardest], momentum)
    # Within one turn every cluster occurs at most once, so all its rows move together.
    turn = _turn_within_cluster(targets)
    order, sizes = torch.argsort(turn, stable=True), torch.bincount(turn).tolist()
    for now, instances in zip(targets[order].split(sizes), features[order].split(sizes), strict=True):
        result = _blend(result, now, instances, momentum)
    return result


@torch.no_grad()
def spread_rows(features: Tensor, labels: Tensor, num_clusters: int, count: int) -> Tensor:
    """``count`` images of each cluster, evenly spaced over its images in their order.

    A cluster of fewer images gives each of them, some of them repeatedly.

    Args:
        features: ``(N, D)``.
        labels: ``(N,)`` int64 in ``-1 .. num_clusters-1``, each cluster at least once; -1 = outlier.
        num_clusters: C.
        count: K.

    Returns:
        ``(C, K, D)`` rows of ``features``.
    """
    order = torch.argsort(labels, stable=True)[int((labels < 0).sum()) :]
    sizes = torch.bincount(labels[labels >= 0], minlength=num_clusters)
    starts = sizes.cumsum(0) - sizes
    places = starts[:, None] + torch.arange(count, device=labels.device) * sizes[:, None] // count
    return features[order[places]]


@torch.no_grad()
def newest_rows(rows: Tensor, oldest: Tensor, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Sets of rows after one batch: each instance takes the place of the oldest row of its cluster's set.

    Args:
        rows: ``(C, K, D)``.
        oldest: ``(C,)`` int64 place of the oldest row in each set.
        features: ``(B, D)`` in batch order; of more than K instances of a cluster the last K stay.
        targets: ``(B,)`` int64 in ``-1 .. C-1``; -1 is ignored.

    Returns:
        New rows and new places; inputs stay as they are.
    """
    count = rows.shape[1]
    features, targets = features[targets >= 0], targets[targets >= 0]
    came = torch.bincount(targets, minlength=len(oldest))
    turn = _turn_within_cluster(targets)
    last = turn >= came[targets] - count
    rows, place = rows.clone(), (oldest[targets] + turn) % count
    rows[targets[last], place[last]] = features[last].to(rows.dtype)
    return rows, (oldest + came) % count


def _work_dtype(rows: Tensor) -> torch.dtype:
    return torch.float64 if rows.dtype == torch.float64 else torch.float32


def _blend(rows: Tensor, clusters: Tensor, instances: Tensor, momentum: float) -> Tensor:
    """Write the blended, renormalised rows of distinct ``clusters`` into ``rows`` and return it."""
    old = rows[clusters].to(instances.dtype)
    blended = momentum * old + (1.0 - momentum) * instances
    length = blended.norm(dim=1, keepdim=True)
    # Below the rounding error of a unit vector the direction is noise: keep the old row.
    vanished = length < 1e-6
    rows[clusters] = torch.where(vanished, old, blended / length.masked_fill(vanished, 1.0)).to(rows.dtype)
    return rows


def _first_of_each_cluster(targets: Tensor, key: Tensor) -> Tensor:
    """``(U,)`` batch positions: per distinct target the smallest key, the earliest among equals."""
    order = torch.argsort(key, stable=True)
    order = order[torch.argsort(targets[order], stable=True)]
    grouped = targets[order]
    is_first = torch.ones_like(grouped, dtype=torch.bool)
    is_first[1:] = grouped[1:] != grouped[:-1]
    return order[is_first]


def _turn_within_cluster(targets: Tensor) -> Tensor:
    """``(B,)`` int64: how many earlier samples of the batch have the same target."""
    order = torch.argsort(targets, stable=True)
    counts = torch.unique_consecutive(targets[order], return_counts=True)[1]
    starts = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    turn = torch.empty_like(targets)
    turn[order] = torch.arange(targets.numel(), device=targets.device) - starts
    return turn
