"""Loss heads: the loss terms of the methods, one file each."""

from . import fastreid_losses
from .base import LOSS_HEAD_REGISTRY, LossHead, build_loss_heads
from .cluster_nce import ClusterNCE
from .cma import CMA
from .cpml import CPML
from .dgm import DGM
from .glare_mask import GlareMask
from .identity_classifier import IdentityClassifier
from .image_text import ImageText
from .maa import MAA
from .mmd import MMD, MarginMMD
from .pgm import PGM
from .prototype_classifier import PrototypeClassifier
from .triplets import CentreTriplet, HardTriplet, WeightedTriplet

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
    "GlareMask",
    "HardTriplet",
    "IdentityClassifier",
    "ImageText",
    "LossHead",
    "MarginMMD",
    "PrototypeClassifier",
    "WeightedTriplet",
    "build_loss_heads",
    "fastreid_losses",
]
