"""For every public function of the room `functional`: a call on any device, or the reason why it never sees a GPU."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins import functional
from dnreid_plugins.functional import grouping, memory_update, modulation, precision
from dnreid_plugins.functional.cluster_quality import mutual_share
from dnreid_plugins.functional.losses import (
    adaptive_alignment,
    confusion,
    contrast,
    cpml,
    glare,
    hybrid,
    image_text,
    mmd,
    relaxed_contrast,
    soft_contrast,
    triplets,
)
from dnreid_plugins.functional.matching import dictionary, graphs, mutual_topk, pair_count, quality, transport
from dnreid_plugins.functional.neighbours import (
    clustering,
    codes,
    density,
    jaccard,
    knn,
    radius,
    soft_targets,
    votes,
)
from dnreid_plugins.functional.ranking import metrics, rerank
from dnreid_plugins.functional.types import Assignment


class World:
    """Inputs that are the same on every device: drawn on the CPU, then moved. Leaves keep their gradient.

    16 dimensions, 5 day and 4 night clusters, 24 day and 20 night images; -1 is no cluster.
    """

    def __init__(self, device: str, dtype: torch.dtype = torch.float32) -> None:
        self.device, self.dtype = device, dtype
        self.generator = torch.Generator().manual_seed(0)
        self.leaves: list[Tensor] = []
        self.x, self.y = self.unit(24), self.unit(20)
        self.x_ids = self.to(torch.tensor([-1, *(n % 5 for n in range(23))]))
        self.y_ids = self.to(torch.tensor([-1, *(n % 4 for n in range(19))]))
        self.day, self.night = self.unit(5), self.unit(4)

    def to(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device)

    def noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def leaf(self, tensor: Tensor) -> Tensor:
        self.leaves.append(tensor.to(self.device, self.dtype).requires_grad_())
        return self.leaves[-1]

    def unit(self, count: int) -> Tensor:
        return self.leaf(F.normalize(self.noise(count, 16), dim=1))

    def table(self, *shape: int) -> Tensor:
        return self.leaf(self.noise(*shape))

    def whole(self, count: int, high: int) -> Tensor:
        return self.to(torch.randint(high, (count,), generator=self.generator))

    @cached_property
    def groups(self) -> Tensor:
        """``(90, 16)`` unit rows in 9 tight groups, for what depends on neighbours."""
        centres = F.normalize(self.noise(9, 16), dim=1).repeat_interleave(10, dim=0)
        return self.to(F.normalize(centres + 0.05 * self.noise(90, 16), dim=1))

    @cached_property
    def of_groups(self) -> Tensor:
        return self.to(torch.arange(9).repeat_interleave(10))

    @cached_property
    def similarity(self) -> Tensor:
        return (self.day @ self.night.T).detach()

    @cached_property
    def partition(self) -> Any:
        return mutual_topk.mutual_topk_partition(self.similarity, 2)

    @cached_property
    def matched(self) -> Assignment:
        """On the CPU, as an epoch has it."""
        return Assignment.from_pairs(
            torch.tensor([[0, 1], [2, 0], [3, 3]]), torch.tensor([0.9, 0.8, 0.7]), 5, 4
        )

    @cached_property
    def maps(self) -> tuple[Tensor, Tensor]:
        return self.to(self.matched.day_to_night), self.to(self.matched.night_to_day)

    @cached_property
    def domains(self) -> Tensor:
        return self.to(torch.arange(24) % 2)

    @cached_property
    def soft(self) -> Any:
        shares = self.to(torch.softmax(self.noise(24, 2), dim=1))
        clusters = torch.stack([self.x_ids, self.x_ids.roll(1)], dim=1)
        return soft_targets.SoftTargets(clusters, shares, (self.x_ids >= 0).float())


Case = Callable[[World], Any]


def _classifier(w: World) -> Any:
    layers = confusion.HalvingClassifier(16, 32)
    start = layers.start(torch.Generator().manual_seed(1))
    return layers.logits(w.x, w.leaf(start))


def _pairs(w: World) -> Any:
    return pair_count.pair_count_matching(w.x.detach(), w.x_ids, w.y.detach(), w.y_ids, threshold=0.1)


def _ranked(w: World) -> Any:
    return metrics.rank_metrics(w.groups[::3], w.groups, w.of_groups[::3], w.of_groups)


def _maa(w: World) -> Any:
    return adaptive_alignment.maa_loss(w.x, w.y, w.x_ids, w.y_ids, *w.maps)


CASES: dict[str, Case] = {
    "cluster_quality.mutual_share": lambda w: mutual_share(w.x, w.y),
    "grouping.cluster_means": lambda w: grouping.cluster_means(w.x, w.x_ids),
    "grouping.domain_balanced_means": lambda w: grouping.domain_balanced_means(
        w.x.detach(), w.x_ids, w.domains
    ),
    "losses.adaptive_alignment.maa_loss": _maa,
    "losses.adaptive_alignment.multi_factor_weights": lambda w: adaptive_alignment.multi_factor_weights(
        w.x, w.y, w.x_ids, w.y_ids, *w.maps
    ),
    "losses.confusion.HalvingClassifier": _classifier,
    "losses.confusion.cross_entropy_by_class": lambda w: confusion.cross_entropy_by_class(
        w.table(24, 3), w.domains
    ),
    "losses.confusion.nesterov_step": lambda w: confusion.nesterov_step(
        w.table(9), w.table(9), w.table(9), lr=0.1, momentum=0.9, weight_decay=0.01
    ),
    "losses.confusion.view_classes": lambda w: confusion.view_classes(w.domains, w.whole(24, 2)),
    "losses.contrast.cluster_nce": lambda w: contrast.cluster_nce(w.x, w.x_ids, w.day),
    "losses.contrast.mapped_targets": lambda w: contrast.mapped_targets(w.x_ids, w.matched.day_to_night),
    "losses.contrast.mutual_mapping_loss": lambda w: contrast.mutual_mapping_loss(
        w.x, w.x_ids, w.maps[0], w.to(w.matched.day_score), w.night
    ),
    "losses.contrast.zero_with_graph": lambda w: contrast.zero_with_graph(w.x),
    "losses.cpml.batch_centroid_cpml": lambda w: cpml.batch_centroid_cpml(
        w.x, w.x_ids, w.y, w.y_ids, w.day, w.night, w.partition
    ),
    "losses.cpml.instance_cpml": lambda w: cpml.instance_cpml(
        w.x, w.x_ids, w.y, w.y_ids, w.day, w.night, w.partition
    ),
    "losses.cpml.released_cpml": lambda w: cpml.released_cpml(w.day, w.night, w.partition),
    "losses.cpml.row_cpml": lambda w: cpml.row_cpml(w.day, w.night, w.partition),
    "losses.glare.mask_loss": lambda w: glare.mask_loss(w.table(24, 4, 3), w.domains),
    "losses.hybrid.dynamic_nce": lambda w: hybrid.dynamic_nce(
        w.x, w.x_ids, F.normalize(w.table(5, 3, 16), dim=2)
    ),
    "losses.hybrid.hybrid_nce": lambda w: hybrid.hybrid_nce(w.x, w.x_ids, w.day, w.unit(5)),
    "losses.image_text.batch_text_alignment": lambda w: image_text.batch_text_alignment(
        w.x, w.table(24, 16), w.x_ids
    ),
    "losses.image_text.instance_contrast": lambda w: image_text.instance_contrast(
        w.x, w.table(24, 16), w.whole(24, 12)
    ),
    "losses.image_text.smoothed_cross_entropy": lambda w: image_text.smoothed_cross_entropy(
        w.table(24, 5), w.x_ids
    ),
    "losses.mmd.gaussian_kernels": lambda w: mmd.gaussian_kernels(w.x, w.y),
    "losses.mmd.margin_mmd": lambda w: mmd.margin_mmd(w.x, w.y, w.x_ids, w.y_ids, *w.maps, margin=0.1),
    "losses.mmd.mmd2": lambda w: mmd.mmd2(w.x, w.y),
    "losses.relaxed_contrast.relaxed_contrast": lambda w: relaxed_contrast.relaxed_contrast(w.x),
    "losses.soft_contrast.soft_nce": lambda w: soft_contrast.soft_nce(w.x, w.soft, w.day),
    "losses.triplets.centre_triplet": lambda w: triplets.centre_triplet(w.x, w.x_ids),
    "losses.triplets.hard_triplet": lambda w: triplets.hard_triplet(
        w.x, w.x_ids, margin=0.3, domains=w.domains
    ),
    "losses.triplets.weighted_triplet": lambda w: triplets.weighted_triplet(w.x, w.x_ids),
    "matching.dictionary.cosine_similarity_matrix": lambda w: dictionary.cosine_similarity_matrix(
        w.day, w.night
    ),
    "matching.dictionary.graph_cost": lambda w: dictionary.graph_cost(w.similarity, 0.1),
    "matching.dictionary.mutual_information": lambda w: dictionary.mutual_information(
        w.similarity, threshold=0.1
    ),
    "matching.graphs.dictionary_graph_matching": lambda w: graphs.dictionary_graph_matching(
        w.day.detach(), w.night.detach(), progress=0.2, threshold_start=0.0
    ),
    "matching.graphs.hungarian_matching": lambda w: graphs.hungarian_matching(w.similarity),
    "matching.graphs.progressive_graph_matching": lambda w: graphs.progressive_graph_matching(
        w.day.detach(), w.night.detach()
    ),
    "matching.mutual_topk.mutual_topk_partition": lambda w: w.partition,
    "matching.pair_count.merge_rows": lambda w: pair_count.merge_rows(w.day, w.night, w.matched),
    "matching.pair_count.pair_count_matching": _pairs,
    "matching.quality.majority_identity": lambda w: quality.majority_identity(w.x_ids, w.whole(24, 7), 5),
    "matching.transport.sinkhorn": lambda w: transport.sinkhorn(
        w.similarity, w.similarity.new_full((5,), 0.2), w.similarity.new_full((4,), 0.25)
    ),
    "matching.transport.sinkhorn_argmax": lambda w: transport.sinkhorn_argmax(1.0 - w.similarity),
    "memory_update.newest_rows": lambda w: memory_update.newest_rows(
        w.table(5, 3, 16), w.whole(5, 3), w.x.detach(), w.x_ids
    ),
    "memory_update.spread_rows": lambda w: memory_update.spread_rows(w.x, w.x_ids, 5, 3),
    "memory_update.updated_rows": lambda w: [
        memory_update.updated_rows(w.day.detach(), w.x.detach(), w.x_ids, momentum=0.3, policy=policy)
        for policy in ("sequential", "mean", "hardest")
    ],
    "modulation.class_attention": lambda w: modulation.class_attention(
        w.table(6, 8, 4, 3), w.table(16, 8), w.day.detach()
    ),
    "modulation.enhance_structure": lambda w: modulation.enhance_structure(w.table(6, 8, 7, 5)),
    "modulation.glare_mask": lambda w: modulation.glare_mask(w.to(127 + 127 * w.noise(6, 3, 12, 8).tanh())),
    "modulation.partner_attention": lambda w: modulation.partner_attention(
        w.x_ids, w.domains, w.x_ids, w.domains, w.table(24, 4, 3)
    ),
    "modulation.pooled_to": lambda w: modulation.pooled_to(w.table(6, 1, 16, 12), (3, 4)),
    "neighbours.clustering.jaccard_dbscan": lambda w: clustering.jaccard_dbscan(
        w.groups, k1=8, k2=3, eps=0.6
    ),
    "neighbours.codes.softmax_codes": lambda w: codes.softmax_codes(w.x, [w.day, w.night]),
    "neighbours.density.cluster_density": lambda w: density.cluster_density(w.groups, w.of_groups),
    "neighbours.density.density_relabel": lambda w: density.density_relabel(w.groups, w.of_groups, 4),
    "neighbours.jaccard.jaccard_graph": lambda w: jaccard.jaccard_graph(w.groups, k1=8, k2=3).toarray(),
    "neighbours.knn.as_matrix": lambda w: knn.as_matrix(w.groups),
    "neighbours.knn.knn_across": lambda w: knn.knn_across(w.groups[::3], w.groups, 5),
    "neighbours.knn.knn_table": lambda w: knn.knn_table(w.groups, 5),
    "neighbours.radius.dbscan_auto": lambda w: radius.dbscan_auto(
        [jaccard.jaccard_graph(w.groups, k1=8, k2=3, radius=0.9)], [w.groups]
    )[0][0],
    "neighbours.radius.jaccard_dbscan_auto": lambda w: radius.jaccard_dbscan_auto([w.groups], k1=8, k2=3)[0][
        0
    ],
    "neighbours.soft_targets.neighbour_soft_targets": lambda w: soft_targets.neighbour_soft_targets(
        w.whole(96, 5).view(24, 4), w.to(torch.full((5,), 5)), w.x_ids
    ),
    "neighbours.votes.label_totals": lambda w: votes.label_totals(w.whole(96, 5).view(24, 4)),
    "neighbours.votes.majority_smooth": lambda w: votes.majority_smooth(w.whole(96, 24).view(24, 4), w.x_ids),
    "neighbours.votes.transfer_by_vote": lambda w: votes.transfer_by_vote(
        w.whole(96, 24).view(24, 4), w.to(w.noise(24, 4)), w.x_ids
    ),
    "precision.in_full_precision": lambda w: precision.in_full_precision(lambda a, b: a @ b.T)(w.x, w.day),
    "ranking.metrics.rank_features": lambda w: metrics.rank_features(
        w.groups[::3], w.groups, w.of_groups[::3], w.of_groups
    ),
    "ranking.metrics.rank_metrics": _ranked,
    "ranking.metrics.distances_of_query": lambda w: metrics.distances_of_query(
        w.groups[::3], w.groups, 2, metric="euclidean"
    ),
    "ranking.rerank.jaccard_distances": lambda w: rerank.jaccard_distances(
        w.groups[::3], w.groups, k1=8, k2=3
    ),
}

_LABELS = "works on labels, which an epoch keeps on the CPU"
_SPARSE = "works on a sparse graph of SciPy, with loops compiled for the CPU"
_NUMPY = "works on NumPy arrays of the CPU"
CPU_ONLY: dict[str, str] = {
    "cluster_quality.cluster_quality": _LABELS,
    "cluster_quality.label_free_quality": "scikit-learn on the CPU",
    "cluster_quality.label_stability": _LABELS,
    "corrections.corrected_labels": _LABELS,
    "corrections.known_pairs": _LABELS,
    "matching.carry.carried_assignment": _LABELS,
    "matching.dictionary.ramped_threshold": "a number of Python",
    "matching.quality.matching_precision": _LABELS,
    "neighbours.clustering.dbscan_graph": _SPARSE,
    "neighbours.clustering.dbscan_radii": _SPARSE,
    "neighbours.clustering.estimate_label_phase": "numbers of Python",
    "neighbours.jaccard.reciprocal_sets": _SPARSE,
    "neighbours.radius.k_distances": _SPARSE,
    "neighbours.radius.radius_scores": "scikit-learn's figures on the CPU",
    "ranking.metrics.rank_distances": _NUMPY,
    "ranking.metrics.summarize": _NUMPY,
    "ranking.nearest.best_rows": _NUMPY,
    "ranking.nearest.exact_scores": _NUMPY,
    "ranking.nearest.rounding_bound": "a number of Python",
    "ranking.roc.true_positive_rates": _NUMPY,
    "ranking.verification.certifiable_rate": "a number of Python",
    "ranking.verification.clopper_pearson": "numbers of Python",
    "ranking.verification.identity_bootstrap": _NUMPY,
    "ranking.verification.threshold_at": _NUMPY,
}
#: Classes among the cases; of other classes only data.
CLASSES = {"losses.confusion.HalvingClassifier"}


def public_functions() -> set[str]:
    """``module.function`` of every public function in the room; modules with an underscore are its own business."""
    found = set()
    prefix = functional.__name__ + "."
    for info in pkgutil.walk_packages(functional.__path__, prefix):
        short = info.name.removeprefix(prefix)
        if info.ispkg or any(part.startswith("_") for part in short.split(".")):
            continue
        for name, one in inspect.getmembers(importlib.import_module(info.name), inspect.isfunction):
            if one.__module__ == info.name and not name.startswith("_"):
                found.add(f"{short}.{name}")
    return found
