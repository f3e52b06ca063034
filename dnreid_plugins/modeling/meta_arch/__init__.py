"""Meta-architectures, registered with fast-reid."""

from .cross_domain import CrossDomainBaseline, StudentFeatures, build_parts

__all__ = ["CrossDomainBaseline", "StudentFeatures", "build_parts"]
