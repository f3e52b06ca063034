"""Unsupervised day/night re-identification for fast-reid.

Importing this package registers its data sets, backbones, heads, meta-architectures and loss heads with
fast-reid and adds its keys to fast-reid's default config; nothing else happens at import.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (the source as it is, run by an old Python, comes as far as here)
    raise ImportError(
        f"dnreid_plugins needs Python 3.10 or newer, this is {sys.version_info[0]}.{sys.version_info[1]}: "
        "run it with a newer one",
        name=__name__,  # makes `python -m dnreid_plugins` say the sentence alone
    )

from . import compat

compat.import_fastreid()

from . import config, data, evaluation, modeling  # noqa: E402

compat.mend()
config.extend_defaults()

__version__ = "0.1.0"
__all__ = ["__version__", "config", "data", "evaluation", "modeling"]
