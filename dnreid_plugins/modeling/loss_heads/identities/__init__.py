"""Losses of supervised systems: over true identities, or over any clusters of both domains."""

from .classifier import IdentityClassifier
from .glare_mask import GlareMask
from .triplets import CentreTriplet, HardTriplet, WeightedTriplet

__all__ = ["CentreTriplet", "GlareMask", "HardTriplet", "IdentityClassifier", "WeightedTriplet"]
