"""What CPML attracts, chosen for experiments: some choices read the true identities, so no method may use them.

Made for the table `positives` of `projects/BridgingDayNight/tables.yml`.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dnreid_plugins.functional.matching.graphs import dictionary_graph_matching
from dnreid_plugins.functional.matching.mutual_topk import NeighbourPartition, mutual_topk_partition
from dnreid_plugins.functional.matching.quality import majority_identity
from dnreid_plugins.functional.types import Assignment, Domain, Epoch, TrainImages
from dnreid_plugins.labels.base import Refiner, make_clusters, refiner, rows_at, with_clusters, without_gaps
from dnreid_plugins.modeling.loss_heads.base import LOSS_HEAD_REGISTRY, Schedule
from dnreid_plugins.modeling.loss_heads.cpml import CPML
from dnreid_plugins.modeling.matchers.base import MATCHER_REGISTRY
from dnreid_plugins.modeling.matchers.mutual import MutualNeighbours, nearest_positive
from dnreid_plugins.runtime.sections import Count, Positive

Choice = Literal["mutual", "nearest", "dictionary", "right_mutual", "right"]
TRUE = "identities"


@refiner
class WithIdentities(Refiner):
    """Adds the true identities of all images as the clusters "identities"; labels stay as they are."""

    makes = (TRUE,)

    def __call__(self, epoch: Epoch, features: Tensor, images: TrainImages) -> Epoch:
        everything = torch.arange(len(images))
        labels = without_gaps(torch.as_tensor(images.true_ids))
        return with_clusters(epoch, {TRUE: make_clusters(labels, rows_at(features, everything), everything)})

    def check(self, images: TrainImages) -> None:
        if images.true_ids is None:
            raise ValueError(
                "WithIdentities is named, but a training image has no identity; take another data set."
            )


def positives_of(
    choice: Choice, similarity: Tensor, right: Tensor, dictionary: Tensor, k: int
) -> NeighbourPartition:
    """The pairs of clusters that are attracted; of the ``k`` nearest of either side, the others are repelled.

    Args:
        choice: ``mutual``: each among the k nearest of the other (Eq. 12). ``nearest``: each other's nearest.
            ``dictionary``: DGM's partners. ``right_mutual``: of the mutual ones those of the same vehicle; the wrong
            ones are neither attracted nor repelled. ``right``: every pair of the same vehicle.
        similarity: ``(C_day, C_night)``.
        right: mask of that shape: both clusters mostly show the same vehicle.
        dictionary: mask of that shape: DGM's assignment.
    """
    mutual = mutual_topk_partition(similarity, k)
    if choice == "mutual":
        return mutual
    if choice == "right_mutual":
        return NeighbourPartition(mutual.positives & right, mutual.hard_day, mutual.hard_night)
    positives = {
        "nearest": mutual_topk_partition(similarity, 1).positives,
        "dictionary": dictionary,
        "right": right,
    }[choice]
    near_day, near_night = mutual.positives | mutual.hard_day, mutual.positives | mutual.hard_night
    return NeighbourPartition(positives, near_day & ~positives, near_night & ~positives)


@MATCHER_REGISTRY.register()
class ChosenNeighbours(MutualNeighbours):
    """Mutual neighbours, or the positives of another choice, see `positives_of`.

    Args:
        top_k: Neighbours per cluster.
        choice: What is attracted; DGM's ramp runs over the whole run, so that its last ninth has no partners.
    """

    def __init__(self, *, top_k: Count = 5, choice: Choice = "mutual") -> None:
        super().__init__(top_k=top_k)
        self.choice: Choice = choice

    def match(self, epoch: Epoch, *, first: int = 1) -> tuple[Assignment, dict[str, float]]:
        similarity = epoch.day.centroids @ epoch.night.centroids.T
        ids = epoch.clusters[TRUE].labels
        day, night = (
            majority_identity(epoch[d].labels, ids[epoch[d].indices], epoch[d].num_clusters) for d in Domain
        )
        progress = (epoch.number - 1) / epoch.last
        found = dictionary_graph_matching(epoch.day.centroids, epoch.night.centroids, progress=progress)
        chosen = torch.zeros_like(similarity, dtype=torch.bool)
        pairs = found.assignment.pairs()
        chosen[pairs[:, 0], pairs[:, 1]] = True
        self.partition = positives_of(
            self.choice, similarity, day[:, None] == night[None], chosen, self.top_k
        )
        anchors = max(sum(similarity.shape), 1)
        hard = int(self.partition.hard_day.sum() + self.partition.hard_night.sum())
        return nearest_positive(similarity, self.partition.positives), {
            "positives": 2 * float(self.partition.positives.sum()) / anchors,
            "hard_negatives": hard / anchors,
        }


@LOSS_HEAD_REGISTRY.register()
class CPMLOf(CPML):
    """CPML with the positives of `ChosenNeighbours`.

    Args:
        weight: Piecewise constant over the epochs.
        variant: As in `CPML`.
        matcher: What is attracted.
        temperature: Divides the cosine.
    """

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 1.0),),
        variant: Literal["instance", "batch_centroid", "as_released"] = "instance",
        matcher: ChosenNeighbours,
        temperature: Positive = 0.07,
    ) -> None:
        super().__init__(weight=weight, variant=variant, matcher=matcher, temperature=temperature)
