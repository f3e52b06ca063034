"""Unsupervised day/night re-identification for fast-reid.

Importing this package registers its data sets, backbones, heads, meta-architectures and loss heads with
fast-reid and adds its keys to fast-reid's default config; nothing else happens at import.
"""

import functools
import os
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 10):  # noqa: UP036  (an old Python that runs the source tree gets this far)
    raise ImportError(
        f"dnreid_plugins needs Python 3.10 or newer, this is {sys.version_info[0]}.{sys.version_info[1]}: "
        "run it with a newer one",
        name=__name__,  # makes `python -m dnreid_plugins` show this sentence only
    )

from .runtime import VERSION

__version__ = VERSION

__all__ = ["Matcher", "__version__", "load"]

if TYPE_CHECKING:
    from .retrieval.matcher import Matcher


@functools.cache
def load() -> None:
    """The work of the import. It takes seconds, so the command line calls it only for what needs it."""
    from .patches import compat, config_words

    compat.import_fastreid()

    from . import config, data, dnmini, evaluation, labels, modeling  # noqa: F401  (registers)
    from .engine import solver, stages  # noqa: F401
    from .runtime import workers

    compat.patch_fastreid()
    config_words.install()
    config.extend_defaults()
    workers.install()


def __getattr__(name: str) -> Any:
    if name != "Matcher":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load()
    from .retrieval.matcher import Matcher

    return Matcher


def _is_the_command() -> bool:
    """True for ``dnreid`` and ``python -m dnreid_plugins``, which load what a command needs when it runs.

    Python sets ``argv[0]`` to -m while it looks for the main module. A process that they start has their ``argv``,
    but not their ``orig_argv``.
    """
    script, words = sys.argv[:1], sys.orig_argv
    if script == ["-m"]:
        return "-m" in words and words[words.index("-m") + 1 :][:1] == [__name__]
    return script != [] and os.path.basename(script[0]) in ("dnreid", "dnreid.exe") and script[0] in words


if not _is_the_command():
    load()
