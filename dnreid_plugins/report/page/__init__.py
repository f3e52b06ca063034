"""Pages of runs: one run, several beside each other."""

from .comparison import write_comparison
from .page import write_report

__all__ = ["write_comparison", "write_report"]
