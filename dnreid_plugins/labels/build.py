"""From ``LABELS.SOURCE`` and ``LABELS.REFINERS`` to the labels of an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..functional.cluster_quality import cluster_quality
from ..functional.types import Domain, Epoch
from ..runtime.sections import configured, construct
from .base import LABEL_SOURCE_REGISTRY, REFINER_REGISTRY, LabelSource, Refiner, TrainImages


@configured("LABELS")
class LabelNames:
    """What makes the labels of an epoch.

    Args:
        source: Label source: "DomainClusters" (pseudo labels of each domain, section CLUSTER), "UnionClusters" (of
            both domains as one set, the same section) or "Identities" (the true ones).
        refiners: What changes its labels, in this order, each with its own section in LABELS.
    """

    def __init__(self, *, source: str = "DomainClusters", refiners: Sequence[str] = ()) -> None:
        for key, names, registry in (
            ("SOURCE", (source,), LABEL_SOURCE_REGISTRY),
            ("REFINERS", tuple(refiners), REFINER_REGISTRY),
        ):
            known = sorted(registry._obj_map)
            wrong = [name for name in names if name not in known]
            if wrong:
                raise ValueError(f"LABELS.{key} has {wrong[0]!r}; it is one of {known}.")
        self.source, self.refiners = source, tuple(refiners)


class Labels:
    """A label source and its refiners: features in, an epoch out."""

    def __init__(self, source: LabelSource, refiners: Sequence[Refiner] = ()) -> None:
        self.source = source
        self.refiners = tuple(refiners)

    def makes(self, number: int = 1) -> set[str]:
        """Names of all clusters of epoch ``number`` (from 1)."""
        added = [name for one in self.refiners if one.acts_in(number) for name in one.makes]
        return {"day", "night", *self.source.makes, *added}

    def features_are_read(self) -> bool:
        """Whether the labels depend on the features."""
        return self.source.reads_features or bool(self.refiners)

    def check(self, images: TrainImages) -> None:
        """Refuse images that the source or a refiner cannot work on.

        Raises:
            ValueError: one of them cannot.
        """
        self.source.check(images)
        for one in self.refiners:
            one.check(images)

    def files(self) -> list[str]:
        """Files that the labels depend on."""
        return [path for one in self.refiners for path in one.files()]

    def __call__(self, features: Tensor, images: TrainImages, *, number: int, last: int) -> Epoch:
        """The epoch ``number`` (from 1) of ``last``; ``features`` ``(N, D)`` unit rows in canonical order."""
        clusters = self.source(features, images, epoch=number)
        radii = {f"{name}/radius": c.radius for name, c in clusters.items() if c.radius is not None}
        epoch = Epoch(number, last, clusters, figures=radii)
        for one in self.refiners:
            if one.acts_in(number):
                epoch = one(epoch, features, images)
        return epoch


def build_labels(cfg: Any) -> Labels:
    """The labels that the config names.

    Raises:
        ValueError: an unknown name, or a value that is not allowed in its section.
    """
    names = construct(LabelNames, cfg)
    source = construct(LABEL_SOURCE_REGISTRY.get(names.source), cfg)
    return Labels(source, [construct(REFINER_REGISTRY.get(name), cfg) for name in names.refiners])


def describe(epoch: Epoch, images: TrainImages) -> dict[str, float]:
    """Figures of the health line. Keys that start with ``true/`` need labels and are for diagnosis only."""
    figures: dict[str, float] = dict(epoch.figures)
    for name, part in epoch.clusters.items():
        sizes = torch.bincount(part.labels[part.labels >= 0], minlength=1)
        figures[f"{name}/clusters"] = float(part.num_clusters)
        figures[f"{name}/clustered"] = 100.0 * float((part.labels >= 0).float().mean())
        figures[f"{name}/largest"] = float(sizes.max())
        if images.true_ids is not None:
            quality = cluster_quality(part.labels.numpy(), images.true_ids[part.indices.numpy()])
            figures.update({f"true/{name}/{key}": value for key, value in quality.items()})
        if name not in {domain.word for domain in Domain}:
            figures[f"{name}/mixed"] = float(epoch.mixed(name).sum())
    return figures
