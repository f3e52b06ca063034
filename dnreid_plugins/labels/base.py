"""What makes labels: a source turns features into clusters, refiners change them in a stated order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from fastreid.utils.registry import Registry
from torch import Tensor

from ..functional.types import Clusters, Epoch, TrainImages
from ..runtime.sections import configured
from ..runtime.sentences import ExpectedError

LABEL_SOURCE_REGISTRY = Registry("LABEL_SOURCE")
LABEL_SOURCE_REGISTRY.__doc__ = "Label sources by their name in ``LABELS.SOURCE``."
REFINER_REGISTRY = Registry("REFINER")
REFINER_REGISTRY.__doc__ = "Refiners by their name in ``LABELS.REFINERS``."


#: Features that are looked at together: nobody needs a second matrix of all of them.
ROWS = 16384


class NothingClusteredError(ExpectedError):
    """Neither domain, or a domain under the policy ``stop``, has a single cluster."""


class LabelSource(ABC):
    """Features of all training images -> clusters by name, ``"day"`` and ``"night"`` among them."""

    #: Names of the clusters that it makes beside these two.
    makes: ClassVar[tuple[str, ...]] = ()
    #: Its labels depend on the features.
    reads_features: ClassVar[bool] = True

    @abstractmethod
    def __call__(self, features: Tensor, images: TrainImages, *, epoch: int) -> dict[str, Clusters]:
        """``features`` ``(N, D)`` unit rows; ``epoch`` counts from 1.

        Raises:
            NothingClusteredError: there is nothing to train on.
        """

    def check(self, images: TrainImages) -> None:  # noqa: B027 (most sources can label everything)
        """Refuse images that the source cannot label, before the first epoch.

        Raises:
            ValueError: it cannot label them.
        """


class Refiner(ABC):
    """Changes the labels of an epoch, from a configured epoch on.

    Subclasses are registered with ``REFINER_REGISTRY`` and `configured` as a section of ``LABELS``.
    """

    #: First epoch in which it is active, from 1; a key of every refiner's section.
    start: int = 1
    #: Last epoch in which it is active; 0 = the run's last. A key only where the refiner has it.
    last: int = 0
    #: Names of the clusters that it adds.
    makes: ClassVar[tuple[str, ...]] = ()

    def acts_in(self, number: int) -> bool:
        """Whether it is active in epoch ``number`` (from 1)."""
        return self.start <= number and not 0 < self.last < number

    @abstractmethod
    def __call__(self, epoch: Epoch, features: Tensor, images: TrainImages) -> Epoch:
        """The epoch with other clusters, soft targets, known pairs or figures for the health line."""

    def check(self, images: TrainImages) -> None:  # noqa: B027 (most refiners take any images)
        """Refuse images that it has nothing for, before the first epoch.

        Raises:
            ValueError: it is of no use to them.
        """

    def files(self) -> tuple[str, ...]:
        """Files that its labels depend on; a resumed run refuses other ones."""
        return ()


def refiner(cls: type) -> type:
    """Class decorator that registers a refiner under its name and as section ``LABELS.<NAME>``."""
    REFINER_REGISTRY._do_register(cls.__name__, cls)
    return configured(f"LABELS.{cls.__name__.upper()}")(cls)


def make_clusters(
    labels: Tensor, features: Tensor, indices: Tensor, *, radius: float | None = None
) -> Clusters:
    """Centroids for given labels: the normalised mean of each cluster's features."""
    count = int(labels.max()) + 1 if len(labels) else 0
    sums = torch.zeros(count, features.shape[1])
    for own, rows in zip(labels.split(ROWS), features.split(ROWS), strict=True):  # copies a part at a time
        kept = own >= 0
        sums.index_add_(0, own[kept], rows[kept].float())
    return Clusters(labels, features, F.normalize(sums, dim=1), indices, radius)


def rows_at(features: Tensor, indices: Tensor) -> Tensor:
    """``features[indices]``, without a copy where the indices are consecutive: the result is to be read only."""
    count = len(indices)
    if count and bool((indices[1:] - indices[:-1] == 1).all()):
        return features[int(indices[0]) : int(indices[0]) + count]
    return features[indices]


def without_gaps(labels: Tensor) -> Tensor:
    """The same groups numbered ``0 .. C-1`` in the order of ``labels`` ``(N,)``; -1 stays."""
    known = labels >= 0
    result = torch.full_like(labels, -1)
    result[known] = torch.unique(labels[known], return_inverse=True)[1]
    return result


def with_clusters(epoch: Epoch, changed: Mapping[str, Clusters]) -> Epoch:
    """``epoch`` with some of its clusters replaced or added."""
    return replace(epoch, clusters={**epoch.clusters, **changed})
