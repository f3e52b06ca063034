"""Blocks that are put into any backbone behind the sub-modules that the config names."""

from .base import BLOCK_REGISTRY, Block, build_blocks, insert_blocks
from .day_night_modulation import ClassAttention, GlareSuppression, StructureEnhancement
from .non_local import NonLocal, widen_non_local

__all__ = [
    "BLOCK_REGISTRY",
    "Block",
    "ClassAttention",
    "GlareSuppression",
    "NonLocal",
    "StructureEnhancement",
    "build_blocks",
    "insert_blocks",
    "widen_non_local",
]
