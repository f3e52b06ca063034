"""True identities as labels, so that supervised rows run on the same encoder, sampler and parts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..functional.types import Clusters, Domain
from ..runtime.sections import configured
from .base import LABEL_SOURCE_REGISTRY, LabelSource, TrainImages, make_clusters


@LABEL_SOURCE_REGISTRY.register()
@configured("LABELS.IDENTITIES")
class Identities(LabelSource):
    """Each domain's clusters are its identities; the clusters "joint" are those of both domains together."""

    makes = ("joint",)
    reads_features = False

    def __call__(self, features: Tensor, images: TrainImages, *, epoch: int) -> dict[str, Clusters]:
        self.check(images)
        ids = torch.as_tensor(images.true_ids)
        everything = torch.arange(len(images))
        parts = {"joint": make_clusters(_renumbered(ids), features, everything)}
        for domain in Domain:
            own = torch.nonzero(images.domains == domain).flatten()
            parts[domain.word] = make_clusters(_renumbered(ids[own]), features[own], own)
        return {name: parts[name] for name in ("day", "night", "joint")}

    def check(self, images: TrainImages) -> None:
        if images.true_ids is None:
            raise ValueError(
                "LABELS.SOURCE is 'Identities', but a training image has no identity; choose 'DomainClusters', or a "
                "data set with identities."
            )


def _renumbered(ids: Tensor) -> Tensor:
    """``0 .. C-1`` in the order of the identities."""
    return torch.unique(ids, return_inverse=True)[1]
