"""Loss heads: what a method adds to the batch loss, one file each."""

from .base import LOSS_HEAD_REGISTRY, LossHead
from .build import build_loss_heads
from .cluster_nce import ClusterNCE
from .dgm import DGM
from .maa import MAA
from .mmd import MMD, MarginMMD
from .rivals import CMA, PGM

__all__ = [
    "CMA",
    "DGM",
    "LOSS_HEAD_REGISTRY",
    "MAA",
    "MMD",
    "PGM",
    "ClusterNCE",
    "LossHead",
    "MarginMMD",
    "build_loss_heads",
]
