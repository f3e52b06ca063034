"""Meta-architectures, registered with fast-reid."""

from .cross_domain import CrossDomainBaseline

__all__ = ["CrossDomainBaseline"]
