"""Memories: prototypes that are kept from step to step, one file each."""

from .cluster_memory import ClusterMemory

__all__ = ["ClusterMemory"]
