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
from .clusters import DomainClusters, UnionClusters
from .corrections import Corrections
from .density import DensityRelabel
from .identities import Identities
from .joint_clusters import JointClusters
from .neighbour_votes import MajoritySmooth, TransferByVote

__all__ = [
    "LABEL_SOURCE_REGISTRY",
    "REFINER_REGISTRY",
    "Corrections",
    "DensityRelabel",
    "DomainClusters",
    "Identities",
    "JointClusters",
    "LabelSource",
    "Labels",
    "MajoritySmooth",
    "NothingClusteredError",
    "Refiner",
    "TrainImages",
    "TransferByVote",
    "UnionClusters",
    "build_labels",
]
