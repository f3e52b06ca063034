"""The clusters of an epoch as each camera sees them."""

from __future__ import annotations

import torch
from torch import Tensor

from dnreid_plugins.functional.types import Epoch, TrainImages
from dnreid_plugins.labels.base import Refiner, make_clusters, refiner, with_clusters
from dnreid_plugins.runtime.sections import Count


@refiner
class CameraClusters(Refiner):
    """Adds the clusters ``camera_<n>``: each domain's clusters cut down to the images of one camera.

    Args:
        start: First epoch in which it works.
    """

    def __init__(self, *, start: Count = 1) -> None:
        self.start = start

    def __call__(self, epoch: Epoch, features: Tensor, images: TrainImages) -> Epoch:
        added = {}
        for camera in images.cams.unique().tolist():
            own = torch.nonzero(images.cams == camera).flatten()
            labels = epoch.targets(("day", "night")[int(images.domains[own[0]])], own)
            known = labels >= 0
            labels[known] = labels[known].unique(return_inverse=True)[1]
            added[f"camera_{camera}"] = make_clusters(labels, features[own], own)
        return with_clusters(epoch, added)
