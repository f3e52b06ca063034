"""The slow imports, which a command does when it runs and not before."""

from __future__ import annotations

import importlib
import os
import sys
import warnings


def load() -> None:
    """Import PyTorch, fast-reid and the plug-ins; on a terminal with a message before each."""
    # fast-reid's; the ranking is ours.
    warnings.filterwarnings("ignore", "Cython rank evaluation")
    say("loading PyTorch")
    importlib.import_module("torchvision")
    say("loading fast-reid and the plug-ins")
    importlib.import_module("dnreid_plugins").load()


def say(text: str) -> None:
    """A line about the work, on a terminal only, and of the first process only."""
    if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"dnreid: {text} ...\n")
        sys.stderr.flush()
