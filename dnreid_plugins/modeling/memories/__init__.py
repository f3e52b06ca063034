"""Memories: what is remembered of the training images from step to step, one file each."""

from .cluster_memory import ClusterMemory

__all__ = ["ClusterMemory"]
