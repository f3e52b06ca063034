"""Checks before the first epoch: refuse settings that cannot work or that fast-reid would silently ignore."""

from .resources import check_resources
from .training import check, check_supervised_data

__all__ = ["check", "check_resources", "check_supervised_data"]
