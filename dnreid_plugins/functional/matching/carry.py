"""A matching outlives the epoch it was made in: clusters are renumbered, their images stay."""

from __future__ import annotations

import torch
from torch import Tensor

from dnreid_plugins.functional.types import Assignment


def carried_assignment(
    previous: Assignment,
    *,
    old_labels_day: Tensor,
    new_labels_day: Tensor,
    old_labels_night: Tensor,
    new_labels_night: Tensor,
    num_day: int,
    num_night: int,
) -> Assignment:
    """The matching ``previous`` said of this epoch's clusters, each of its two directions for itself.

    Two clusterings number independently, so each old cluster hands its match to one heir: among the new
    clusters that took most of their images from it, the one that took the most (the lowest number among
    equals). A partner survives if both clusters have an heir.

    Args:
        previous: matching between the old clusters; may be many-to-one.
        old_labels_day: ``(N_day,)`` int64 labels ``previous`` was made with; -1 = outlier.
        new_labels_day: ``(N_day,)`` int64 labels of the same images now.
        old_labels_night: ``(N_night,)``, likewise.
        new_labels_night: ``(N_night,)``, likewise.
        num_day: number of new day clusters.
        num_night: number of new night clusters.
    """
    heir_day = _heirs(old_labels_day, new_labels_day, previous.day_to_night.shape[0], num_day)
    heir_night = _heirs(old_labels_night, new_labels_night, previous.night_to_day.shape[0], num_night)
    night, day_score = _partners(previous.day_to_night, previous.day_score, heir_day, heir_night, num_day)
    day, night_score = _partners(previous.night_to_day, previous.night_score, heir_night, heir_day, num_night)
    return Assignment(night, day, day_score, night_score)


def _partners(
    partner: Tensor, score: Tensor, heirs: Tensor, partner_heirs: Tensor, num_new: int
) -> tuple[Tensor, Tensor]:
    """One direction between the new clusters: partners ``(C_new,)``, -1 = none, and their scores."""
    old = torch.nonzero(partner >= 0).flatten()
    new, other = heirs[old], partner_heirs[partner[old]]
    alive = (new >= 0) & (other >= 0)
    partners, scores = torch.full((num_new,), -1), score.new_zeros(num_new)
    partners[new[alive]] = other[alive]
    scores[new[alive]] = score[old][alive]
    return partners, scores


def _heirs(old: Tensor, new: Tensor, num_old: int, num_new: int) -> Tensor:
    """``(C_old,)`` int64, the new cluster that continues each old one; -1 = none. No heir serves twice."""
    if num_old == 0 or num_new == 0:
        return torch.full((num_old,), -1)
    both = (old >= 0) & (new >= 0)
    joint = (old[both] * num_new + new[both]).cpu()
    shared = torch.bincount(joint, minlength=num_old * num_new).view(num_old, num_new)
    main_parent = torch.zeros_like(shared).scatter_(0, shared.argmax(dim=0, keepdim=True), 1)
    inherited, heir = (shared * main_parent).max(dim=1)
    return torch.where(inherited > 0, heir, -1)
