"""Stand-ins: a few rendered vehicles in the exact on-disk layout of a real data set."""

from .layouts import LAYOUTS
from .write import write_stand_in

__all__ = ["LAYOUTS", "write_stand_in"]
