"""Matchers: which day cluster is matched with which night cluster, one file each."""

from .base import MATCHER_REGISTRY, Matcher
from .dictionary import DictionaryMatcher
from .joint import JointMatcher
from .mutual import MutualNeighbours
from .pair_count import PairCountMatcher
from .progressive import ProgressiveMatcher
from .transport import SinkhornMatcher

__all__ = [
    "MATCHER_REGISTRY",
    "DictionaryMatcher",
    "JointMatcher",
    "Matcher",
    "MutualNeighbours",
    "PairCountMatcher",
    "ProgressiveMatcher",
    "SinkhornMatcher",
]
