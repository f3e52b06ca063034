"""Blocks that are put into any backbone behind the sub-modules that the config names."""

from .base import BLOCK_REGISTRY, Block, build_blocks, insert_blocks
from .day_night_modulation import ClassAttention, GlareSuppression, StructureEnhancement

__all__ = [
    "BLOCK_REGISTRY",
    "Block",
    "ClassAttention",
    "GlareSuppression",
    "StructureEnhancement",
    "build_blocks",
    "insert_blocks",
]
