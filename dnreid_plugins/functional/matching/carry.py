"""Carry a matching over to the next epoch, where clusters have new numbers but the images are the same."""

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
    """The matching ``previous`` translated to this epoch's clusters, each of its two directions separately.

    The two clusterings are numbered independently, so each old cluster passes its match to one successor: among the
    new clusters that took most of their images from it, the one that took the most (the lowest number among
    equals). A pair is kept if both clusters have a successor.

    Args:
        previous: matching between the old clusters; may be many-to-one.
        old_labels_day: ``(N_day,)`` int64 labels ``previous`` was made with; -1 = outlier.
        new_labels_day: ``(N_day,)`` int64 labels of the same images now.
        old_labels_night: ``(N_night,)``, likewise.
        new_labels_night: ``(N_night,)``, likewise.
        num_day: number of new day clusters.
        num_night: number of new night clusters.
    """
    next_day = _successors(old_labels_day, new_labels_day, previous.day_to_night.shape[0], num_day)
    next_night = _successors(old_labels_night, new_labels_night, previous.night_to_day.shape[0], num_night)
    night, day_score = _partners(previous.day_to_night, previous.day_score, next_day, next_night, num_day)
    day, night_score = _partners(previous.night_to_day, previous.night_score, next_night, next_day, num_night)
    return Assignment(night, day, day_score, night_score)


def _partners(
    partner: Tensor, score: Tensor, successors: Tensor, partner_successors: Tensor, num_new: int
) -> tuple[Tensor, Tensor]:
    """One direction between the new clusters: partners ``(C_new,)``, -1 = none, and their scores."""
    old = torch.nonzero(partner >= 0).flatten()
    new, other = successors[old], partner_successors[partner[old]]
    alive = (new >= 0) & (other >= 0)
    partners, scores = torch.full((num_new,), -1), score.new_zeros(num_new)
    partners[new[alive]] = other[alive]
    scores[new[alive]] = score[old][alive]
    return partners, scores


def _successors(old: Tensor, new: Tensor, num_old: int, num_new: int) -> Tensor:
    """``(C_old,)`` int64, the new cluster that continues each old one; -1 = none. No cluster continues two."""
    if num_old == 0 or num_new == 0:
        return torch.full((num_old,), -1)
    both = (old >= 0) & (new >= 0)
    joint = (old[both] * num_new + new[both]).cpu()
    shared = torch.bincount(joint, minlength=num_old * num_new).view(num_old, num_new)
    main_parent = torch.zeros_like(shared).scatter_(0, shared.argmax(dim=0, keepdim=True), 1)
    inherited, successor = (shared * main_parent).max(dim=1)
    return torch.where(inherited > 0, successor, -1)
