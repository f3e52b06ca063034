"""Matching by clusters that span both domains, true identities for one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.types import Assignment, Clusters, Epoch
from ...runtime.sections import configured
from .base import MATCHER_REGISTRY, Matcher


@MATCHER_REGISTRY.register()
@configured("")
class JointMatcher(Matcher):
    """One to one: the day and the night cluster that hold most images of the same joint cluster.

    It needs a label source that makes the clusters "joint", such as ``Identities``.
    """

    reads = ("joint",)
    reads_features = False

    def match(self, epoch: Epoch, *, first: int = 1) -> tuple[Assignment, dict[str, float]]:
        joint = epoch.clusters["joint"].num_clusters
        day, night = (_shared(part, epoch, joint) for part in (epoch.day, epoch.night))
        (most_day, of_day), (most_night, of_night) = (
            table.max(dim=0) if len(table) else (torch.zeros(joint), torch.zeros(joint, dtype=torch.int64))
            for table in (day, night)
        )
        both = (most_day > 0) & (most_night > 0)
        pairs = torch.stack([of_day[both], of_night[both]], dim=1)
        return Assignment.from_pairs(pairs, torch.ones(len(pairs)), len(day), len(night)), {}


def _shared(part: Clusters, epoch: Epoch, joint: int) -> Tensor:
    """``(C, J)`` images of each cluster in the joint cluster that holds most of them; 0 in all others."""
    targets = epoch.targets("joint", part.indices)
    known = (part.labels >= 0) & (targets >= 0)
    table = torch.zeros(part.num_clusters, joint, dtype=torch.int64)
    table.index_put_((part.labels[known], targets[known]), torch.tensor(1), accumulate=True)
    return table * F.one_hot(table.argmax(dim=1), joint) if table.numel() else table
