"""Unsupervised day/night re-identification for fast-reid.

Importing this package registers its data sets, backbones, heads, meta-architectures and loss heads with
fast-reid and adds its keys to fast-reid's default config; nothing else happens at import.
"""

import functools
import sys
from typing import TYPE_CHECKING, Any

if sys.version_info < (3, 10):  # noqa: UP036  (an old Python that runs the source tree gets this far)
    raise ImportError(
        f"dnreid_plugins needs Python 3.10 or newer, this is {sys.version_info[0]}.{sys.version_info[1]}: "
        "run it with a newer one",
        name=__name__,  # makes `python -m dnreid_plugins` show this sentence only
    )

from .runtime import version

__version__ = version.VERSION

__all__ = ["Matcher", "__version__", "load"]

if TYPE_CHECKING:
    from .retrieval.matcher import Matcher


@functools.cache
def load() -> None:
    """The work of the import. It takes seconds, so ``python -m dnreid_plugins`` prints a message before calling it."""
    from .patches import compat

    compat.import_fastreid()

    from . import config, data, dnmini, evaluation, labels, modeling  # noqa: F401  (registers)
    from .engine import solver, stages  # noqa: F401
    from .runtime import workers

    compat.patch_fastreid()
    config.extend_defaults()
    workers.install()


def __getattr__(name: str) -> Any:
    if name != "Matcher":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    load()
    from .retrieval.matcher import Matcher

    return Matcher


def _is_the_command() -> bool:
    """True for ``python -m dnreid_plugins``. Python sets ``argv[0]`` to -m while it looks for the main module."""
    words = sys.orig_argv
    return sys.argv[:1] == ["-m"] and "-m" in words and words[words.index("-m") + 1 :][:1] == [__name__]


if not _is_the_command():
    load()
