"""The two imaging conditions, under the name that the data room uses."""

from __future__ import annotations

from ..functional.types import Domain

__all__ = ["Domain"]
