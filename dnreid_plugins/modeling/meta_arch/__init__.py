"""Meta-architectures, registered with fast-reid."""

from .cross_domain import BeforeNeck, CrossDomainBaseline

__all__ = ["BeforeNeck", "CrossDomainBaseline"]
