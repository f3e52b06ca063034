"""``PLUGINS``: a user's own modules, whose parts, readers and stages a config then names like ours."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .workers import also_call

KEY = "PLUGINS"
_SOURCES: dict[str, str] = {}


def import_plugins(names: Sequence[Any], folder: Path | None = None) -> None:
    """Import the modules ``names``, here and in every process that this one starts.

    They are looked for where Python finds modules, then in ``folder``, where the config lies, then in the current one.

    Raises:
        ValueError: no name of a module, no such module, or an installed one that hides the user's own.
    """
    for place in (folder, Path()) if names else ():
        if place is not None and str(place.resolve()) not in sys.path:
            sys.path.append(str(place.resolve()))
    for name in names:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"{KEY} has {name!r}; write a module as `import` does, such as 'my_losses'.")
        new = name not in sys.modules
        module = _module(name, folder)
        own = (folder or Path()) / f"{name.replace('.', os.sep)}.py"
        if own.is_file() and not (module.__file__ and own.samefile(module.__file__)):
            raise ValueError(
                f"{KEY} has {name!r}, for which Python takes {module.__file__ or 'a built-in'} before {own}; rename "
                "yours."
            )
        if new or name not in _SOURCES:
            _SOURCES[name] = _source(module)
        also_call(importlib.import_module, name)


def _module(name: str, folder: Path | None) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # the module is there and lacks another one
        raise ValueError(
            f"{KEY} has {name!r}, which is not installed and neither {'beside the config nor ' if folder else ''}"
            f"in {os.getcwd()}; correct it, or put its folder into PYTHONPATH."
        ) from error


def plugins_source(names: Sequence[str]) -> str:
    """Twelve hex digits of the modules ``names`` as they were when they were imported; "" for none."""
    known = [_SOURCES[name] for name in names if name in _SOURCES]
    return hashlib.sha256("".join(known).encode()).hexdigest()[:12] if known else ""


def _source(module: Any) -> str:
    """Digest of a module's file, of a package all its files."""
    file = Path(module.__file__ or "")
    files = sorted(file.parent.rglob("*.py")) if hasattr(module, "__path__") else [file]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files if path.is_file())).hexdigest()
