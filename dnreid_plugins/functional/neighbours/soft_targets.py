"""Soft targets from neighbours: which clusters an image may belong to, and how far its own label can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .votes import label_totals


@dataclass(frozen=True)
class SoftTargets:
    """For each image a few clusters with their shares; memory grows with N x K.

    Attributes:
        clusters: ``(N, K + 1)`` int64, the image's own label first, each cluster once; -1 = unused place. A first
            place of -1 is an image without a label.
        shares: ``(N, K + 1)`` float32 target of each; 0 in unused places, else they sum to 1.
        weight: ``(N,)`` float32 trust in [0, 1]; 0 without a label.
    """

    clusters: Tensor
    shares: Tensor
    weight: Tensor

    @classmethod
    def hard(cls, targets: Tensor) -> SoftTargets:
        """One-hot targets ``(N,)`` int64 of weight 1; -1 = none."""
        known = (targets >= 0).float()
        return cls(targets[:, None], known[:, None], known)

    def where(self, chosen: Tensor) -> SoftTargets:
        """A subset of the images: positions in any order, or a mask."""
        return SoftTargets(self.clusters[chosen], self.shares[chosen], self.weight[chosen])

    def to(self, device: torch.device | str) -> SoftTargets:
        return SoftTargets(self.clusters.to(device), self.shares.to(device), self.weight.to(device))


def neighbour_soft_targets(
    neighbour_labels: Tensor, sizes: Tensor, targets: Tensor, *, keep: float = 0.7, sharpness: float = 10.0
) -> SoftTargets:
    """The Jaccard overlap of an image's neighbours with each cluster, as a target and as a weight.

    With ``n_c`` of an image's K neighbours in cluster ``c`` the overlap is ``n_c / (K - n_c + |C_c|)``, and ``s`` is
    the overlaps divided by their sum. For the label ``y`` the target is ``keep * onehot(y) + (1 - keep) * s`` and the
    weight ``exp(-sharpness * (1 - s_y)^2)``. Without a clustered neighbour ``s`` is 0 / 0 (NaN in the released code);
    here the target is then one-hot and the weight 0.

    Args:
        neighbour_labels: ``(N, K)`` int64 clusters of each image's neighbours; -1 = outlier, which counts in K only.
        sizes: ``(C,)`` images of each of these clusters.
        targets: ``(N,)`` int64 label of each image among the same clusters; -1 = none.
        keep: share of the label in the target, in [0, 1].
        sharpness: how fast the weight falls, >= 0.
    """
    labelled = targets >= 0
    clusters, count = label_totals(neighbour_labels)
    clustered = clusters >= 0
    size = torch.zeros_like(count)
    size[clustered] = sizes.to(count)[clusters[clustered]]
    overlap = torch.where(clustered, count / (neighbour_labels.shape[1] - count + size).clamp(min=1), 0.0)
    total = overlap.sum(dim=1, keepdim=True)
    known = labelled & (total[:, 0] > 0)
    share = overlap / total.clamp(min=1e-300)
    own = clustered & (clusters == targets[:, None])
    agreement = (share * own).sum(dim=1)
    first = torch.where(known, keep + (1 - keep) * agreement, labelled.double())
    others = torch.where(known[:, None] & ~own, (1 - keep) * share, 0.0)
    weight = torch.where(known, torch.exp(-sharpness * (1 - agreement).square()), 0.0)
    return SoftTargets(
        torch.cat([targets[:, None], torch.where(others > 0, clusters, -1)], dim=1),
        torch.cat([first[:, None], others], dim=1).float(),
        weight.float(),
    )
