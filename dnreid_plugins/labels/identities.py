"""True identities as labels, so that supervised rows run on the same encoder, sampler and parts."""

from __future__ import annotations

import torch
from torch import Tensor

from ..functional.types import Clusters, Domain
from ..runtime.sections import configured
from .base import LABEL_SOURCE_REGISTRY, LabelSource, TrainImages, make_clusters, rows_at, without_gaps


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
        parts = {"joint": make_clusters(without_gaps(ids), features, everything)}
        for domain in Domain:
            own = torch.nonzero(images.domains == domain).flatten()
            parts[domain.word] = make_clusters(without_gaps(ids[own]), rows_at(features, own), own)
        return {name: parts[name] for name in ("day", "night", "joint")}

    def check(self, images: TrainImages) -> None:
        if images.true_ids is None:
            raise ValueError(
                "LABELS.SOURCE is 'Identities', but a training image has no identity; choose 'DomainClusters', or a "
                "data set with identities."
            )
