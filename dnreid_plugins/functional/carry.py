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
    """The one-to-one matching ``previous`` said of this epoch's clusters.

    Two clusterings number independently, so each old cluster hands its match to one heir: among the new
    clusters that took most of their images from it, the one that took the most (the lowest number among
    equals). A pair survives if both its clusters have an heir.

    Args:
        previous: one-to-one matching between the old clusters.
        old_labels_day: ``(N_day,)`` int64 labels ``previous`` was made with; -1 = outlier.
        new_labels_day: ``(N_day,)`` int64 labels of the same images now.
        old_labels_night: ``(N_night,)``, likewise.
        new_labels_night: ``(N_night,)``, likewise.
        num_day: number of new day clusters.
        num_night: number of new night clusters.
    """
    heir_day = _heirs(old_labels_day, new_labels_day, previous.day_to_night.shape[0], num_day)
    heir_night = _heirs(old_labels_night, new_labels_night, previous.night_to_day.shape[0], num_night)
    pairs = torch.nonzero(previous.day_to_night >= 0).flatten()
    scores = previous.day_score[pairs]
    day, night = heir_day[pairs], heir_night[previous.day_to_night[pairs]]
    alive = (day >= 0) & (night >= 0)
    return Assignment.from_pairs(
        torch.stack([day[alive], night[alive]], dim=1), scores[alive], num_day, num_night
    )


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
