"""How good an epoch's labels are, by figures that need no identities."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from ..functional.cluster_quality import label_free_quality, label_stability, mutual_share
from ..functional.types import Epoch


def label_free_figures(epoch: Epoch, previous: Mapping[str, Tensor]) -> dict[str, float]:
    """Figures of the health line, NaN where one is undefined.

    ``<clusters>/silhouette`` in [-1, 1], of the cosine distances between images and centroids (`label_free_quality`);
    ``<clusters>/stability``: adjusted Rand index between the labels of this epoch and of the one before, on the images
    clustered in both, where there was one; ``matched``: percent of all day and night clusters that are the nearest of
    each other across the domains.

    Args:
        epoch: with the features that its labels were made from.
        previous: labels ``(N,)`` of the epoch before, by the name of the clusters.
    """
    figures: dict[str, float] = {}
    for name, part in epoch.clusters.items():
        figures[f"{name}/silhouette"] = label_free_quality(part.labels, part.features)["silhouette"]
        if name in previous and len(previous[name]) == len(part.labels):
            figures[f"{name}/stability"] = label_stability(part.labels, previous[name])
    figures["matched"] = 100.0 * mutual_share(epoch.day.centroids, epoch.night.centroids)
    return figures
