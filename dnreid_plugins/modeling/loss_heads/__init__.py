"""Loss heads: what a method adds to the batch loss, one file each."""

from .base import LOSS_HEAD_REGISTRY, LossHead, names_sized_by_clusters
from .build import build_loss_heads
from .cluster_nce import ClusterNCE
from .cpml import CPML
from .dgm import DGM
from .image_text import ImageText
from .maa import MAA
from .mmd import MMD, MarginMMD
from .prototype_classifier import PrototypeClassifier
from .rivals import CMA, PGM

__all__ = [
    "CMA",
    "CPML",
    "DGM",
    "LOSS_HEAD_REGISTRY",
    "MAA",
    "MMD",
    "PGM",
    "ClusterNCE",
    "ImageText",
    "LossHead",
    "MarginMMD",
    "PrototypeClassifier",
    "build_loss_heads",
    "names_sized_by_clusters",
]
