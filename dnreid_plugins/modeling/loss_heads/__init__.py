"""Loss heads: the loss terms of the methods, one file each."""

from . import fastreid_losses
from .base import LOSS_HEAD_REGISTRY, LossHead, build_loss_heads
from .cluster_nce import ClusterNCE
from .cma import CMA
from .confusion import DomainConfusion
from .cpml import CPML
from .cross_contrast import CrossContrast
from .dgm import DGM
from .dynamic_contrast import DynamicContrast
from .hybrid_nce import FusedContrast, HybridNCE
from .identities import CentreTriplet, GlareMask, HardTriplet, IdentityClassifier, WeightedTriplet
from .image_text import ImageText
from .joint_contrast import JointContrast, SharedContrast
from .maa import MAA
from .mmd import MMD, MarginMMD
from .neighbour_targets import NeighbourTargets
from .pgm import PGM
from .prototype_classifier import PrototypeClassifier
from .relaxed_contrast import RelaxedContrast

__all__ = [
    "CMA",
    "CPML",
    "DGM",
    "LOSS_HEAD_REGISTRY",
    "MAA",
    "MMD",
    "PGM",
    "CentreTriplet",
    "ClusterNCE",
    "CrossContrast",
    "DomainConfusion",
    "DynamicContrast",
    "FusedContrast",
    "GlareMask",
    "HardTriplet",
    "HybridNCE",
    "IdentityClassifier",
    "ImageText",
    "JointContrast",
    "LossHead",
    "MarginMMD",
    "NeighbourTargets",
    "PrototypeClassifier",
    "RelaxedContrast",
    "SharedContrast",
    "WeightedTriplet",
    "build_loss_heads",
    "fastreid_losses",
]
