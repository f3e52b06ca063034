"""What makes an epoch's pseudo labels: label sources and refiners, by their names in the config."""

from ..functional.types import TrainImages
from .base import (
    LABEL_SOURCE_REGISTRY,
    REFINER_REGISTRY,
    LabelSource,
    NothingClusteredError,
    Refiner,
)
from .build import Labels, build_labels
from .clusters import DomainClusters
from .density import DensityRelabel
from .identities import Identities

__all__ = [
    "LABEL_SOURCE_REGISTRY",
    "REFINER_REGISTRY",
    "DensityRelabel",
    "DomainClusters",
    "Identities",
    "LabelSource",
    "Labels",
    "NothingClusteredError",
    "Refiner",
    "TrainImages",
    "build_labels",
]
