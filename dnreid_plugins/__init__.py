"""Unsupervised day/night re-identification for fast-reid.

Importing this package registers its data sets, backbones, heads, meta-architectures and loss heads with
fast-reid and adds its keys to fast-reid's default config; nothing else happens at import.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036  (an old Python may run the source as it is; it would not get beyond this file)
    # The name makes `python -m dnreid_plugins` say the sentence alone.
    _text = "dnreid_plugins needs Python 3.10 or newer, this is %d.%d: run it with a newer one" % sys.version_info[:2]
    raise ImportError(_text, name=__name__)

from . import compat  # noqa: E402

compat.import_fastreid()

from . import config, data, evaluation, modeling  # noqa: E402

compat.mend()
config.extend_defaults()

__version__ = "0.1.0"
__all__ = ["__version__", "config", "data", "evaluation", "modeling"]
