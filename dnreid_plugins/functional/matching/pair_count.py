"""ADCA's cross-modality memory aggregation (CMA): match clusters by similar image pairs, blend their rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.types import Assignment


@torch.no_grad()
def pair_count_matching(
    features_day: Tensor,
    labels_day: Tensor,
    features_night: Tensor,
    labels_night: Tensor,
    *,
    threshold: float = 0.5,
    block_rows: int = 512,
) -> Assignment:
    """Greedy one-to-one matching by the number of image pairs with similarity at or above ``threshold``.

    Cluster pairs are visited by descending count and accepted if both clusters are still free; equal counts in the
    order of the cluster numbers (day first). The released code sorts all N_day x N_night similarities for
    this; counting them block by block gives the same result in ``block_rows * N_night`` memory.

    Args:
        features_day: ``(N_day, D)`` unit rows. The released code passes means of two unit rows (flip
            average), which are shorter than 1, and that silently raises the threshold.
        labels_day: ``(N_day,)`` int64, -1 = outlier, ignored.
        features_night: ``(N_night, D)`` unit rows.
        labels_night: ``(N_night,)`` int64.
        threshold: cosine from which an image pair counts (ADCA: 0.5).
        block_rows: day images per product.

    Returns:
        Assignment between ``max(label) + 1`` clusters per side; the score is the share of the image pairs
        of the two clusters that count, in ``(0, 1]``. Empty if nothing counts.
    """
    counts = _similar_pair_counts(
        features_day, labels_day, features_night, labels_night, threshold=threshold, block_rows=block_rows
    )
    num_day, num_night = counts.shape
    pairs = _greedy_pairs(counts)
    size_day = torch.bincount(labels_day[labels_day >= 0].cpu(), minlength=num_day)
    size_night = torch.bincount(labels_night[labels_night >= 0].cpu(), minlength=num_night)
    day, night = pairs[:, 0], pairs[:, 1]
    scores = counts[day, night] / (size_day[day] * size_night[night])
    return Assignment.from_pairs(pairs, scores, num_day, num_night)


def _similar_pair_counts(
    features_day: Tensor,
    labels_day: Tensor,
    features_night: Tensor,
    labels_night: Tensor,
    *,
    threshold: float,
    block_rows: int,
) -> Tensor:
    """``(C_day, C_night)`` int64 on the CPU: image pairs at or above the threshold per pair of clusters."""
    features_day, labels_day = _clustered(features_day, labels_day)
    features_night, labels_night = _clustered(features_night, labels_night)
    num_day = int(labels_day.max()) + 1 if labels_day.numel() else 0
    num_night = int(labels_night.max()) + 1 if labels_night.numel() else 0
    counts = torch.zeros(num_day, num_night, dtype=torch.int64, device=features_day.device)
    if num_day == 0 or num_night == 0:
        return counts.cpu()
    for rows, labels in zip(
        torch.split(features_day, block_rows), torch.split(labels_day, block_rows), strict=True
    ):
        # Night images along dim 0, so that summing them by cluster adds whole contiguous rows.
        similar = (features_night @ rows.T >= threshold).to(torch.float32)
        per_image = torch.zeros(num_night, rows.shape[0], device=similar.device)
        per_image.index_add_(0, labels_night, similar)
        counts.index_add_(0, labels, per_image.T.to(torch.int64))
    return counts.cpu()


def _clustered(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Features and labels without the outliers, on the device of the features."""
    labels = labels.to(features.device)
    return features[labels >= 0], labels[labels >= 0]


def _greedy_pairs(counts: Tensor) -> Tensor:
    """``(P, 2)`` int64: pairs by descending count, each cluster at most once, equal counts in index order."""
    candidates = torch.nonzero(counts)
    order = torch.argsort(counts[candidates[:, 0], candidates[:, 1]], descending=True, stable=True)
    taken: list[tuple[int, int]] = []
    used_day, used_night = set[int](), set[int]()
    for day, night in candidates[order].tolist():
        if day not in used_day and night not in used_night:
            taken.append((day, night))
            used_day.add(day)
            used_night.add(night)
            if len(taken) == min(counts.shape):
                break
    return torch.tensor(taken, dtype=torch.int64).view(-1, 2)


@torch.no_grad()
def merge_rows(
    rows_day: Tensor,
    rows_night: Tensor,
    assignment: Assignment,
    *,
    momentum: float = 0.1,
    one_sided: bool = False,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """CMA's update of the memory: ``row <- momentum * row + (1 - momentum) * row of the partner``.

    Both sides blend the rows as they were before. The released code changes the day side only and does
    not renormalise: ``one_sided=True, normalize=False``. At momentum 0.1 two-sided merging nearly swaps
    the rows of a pair; 0.5 makes them equal.

    Args:
        rows_day: ``(C_day, D)`` unit rows.
        rows_night: ``(C_night, D)`` unit rows.
        assignment: rows of clusters without a partner stay bit-identical.
        momentum: share of the own row, in ``[0, 1]``.
        one_sided: leave the night rows unchanged.
        normalize: bring merged rows back to unit length; a merged row of length zero stays the old one.

    Returns:
        New day rows and new night rows; inputs stay as they are.

    Raises:
        ValueError: for a momentum outside ``[0, 1]`` or an assignment of other sizes.
    """
    if not 0.0 <= momentum <= 1.0:
        raise ValueError(f"momentum must lie in [0, 1], got {momentum}; it is the share of the own row.")
    sizes = (assignment.day_to_night.shape[0], assignment.night_to_day.shape[0])
    if sizes != (rows_day.shape[0], rows_night.shape[0]):
        raise ValueError(
            f"assignment is for {sizes} clusters but the memory has {rows_day.shape[0]} day and "
            f"{rows_night.shape[0]} night rows; match the clusters the memory was built from."
        )
    merged_day = _merged(rows_day, rows_night, assignment.day_to_night, momentum, normalize)
    if one_sided:
        return merged_day, rows_night.clone()
    return merged_day, _merged(rows_night, rows_day, assignment.night_to_day, momentum, normalize)


def _merged(own: Tensor, other: Tensor, partner: Tensor, momentum: float, normalize: bool) -> Tensor:
    result = own.clone()
    has_partner = (partner >= 0).to(own.device)
    old = own[has_partner]
    blended = momentum * old + (1.0 - momentum) * other[partner.to(own.device)[has_partner]]
    if normalize:
        length = blended.norm(dim=1, keepdim=True)
        blended = torch.where(length < 1e-6, old, F.normalize(blended, dim=1))
    result[has_partner] = blended
    return result
