"""Unsupervised day/night re-identification for fast-reid.

Importing this package registers its data sets, backbones, heads, meta-architectures and loss heads with
fast-reid and adds its keys to fast-reid's default config; nothing else happens at import.
"""

from . import compat

compat.import_fastreid()

from . import config, data, evaluation, labels, modeling  # noqa: E402
from .engine import stages  # noqa: E402

compat.mend()
config.extend_defaults()

__version__ = "0.1.0"
__all__ = ["__version__", "config", "data", "evaluation", "labels", "modeling", "stages"]
