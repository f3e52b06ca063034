"""Data sets, samplers, transforms and loaders; importing this registers the data sets with fast-reid."""

from . import datasets

__all__ = ["datasets"]
