"""Writing files so that a kill, a full disk or a reader in between never sees half of one."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

TEMPORARY_SUFFIX = ".part"
#: Temporary files of what lies in a run's folder.
LEFTOVER = re.compile(r"\.(last_checkpoint|run\.lock|[\w-]+\.(pth|pt|json|yaml|csv))\.\w+\.part")


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call ``write`` on a temporary file beside ``path``, force it to the disk, then rename it to ``path``.

    On any error the temporary file is removed, the old ``path`` stays as it was and the error goes on.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_leftovers(folder: str | Path) -> None:
    """Delete the temporary files that killed runs left in ``folder``."""
    for path in Path(folder).iterdir():
        if LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def force_to_disk(path: str | Path) -> None:
    """What others have written to the file ``path`` survives a power cut from here on; nothing without a file."""
    if Path(path).is_file():
        with Path(path).open("rb") as file:
            os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename durable. Some file systems cannot sync a folder; the rename itself is done by then."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        pass
    finally:
        os.close(descriptor)


def plain(value: Any, name: str = "data") -> Any:
    """``value`` with everything that PyTorch's safe loader would refuse turned into what it accepts.

    numpy scalars and enums become Python numbers, paths become strings, config nodes and other mappings
    become dicts, named tuples become tuples; tensors are passed through.

    Raises:
        TypeError: an object has no such counterpart; the message names where it stands.
    """
    if value is None or isinstance(value, (torch.Tensor, torch.device, torch.dtype, torch.Size)):
        return value
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, bytes):
        return bytes(value)
    if isinstance(value, np.generic):
        return plain(value.item(), name)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return _plain_mapping(value, name)
    if isinstance(value, (set, frozenset)):
        return {plain(item, name) for item in value}
    if isinstance(value, (list, tuple)):
        items = [plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    raise TypeError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}, which could be saved but never "
        f"safely loaded again; store tensors and plain Python values (torch.from_numpy for an array)."
    )


def _plain_mapping(value: Mapping[Any, Any], name: str) -> dict[Any, Any]:
    kind = OrderedDict if isinstance(value, OrderedDict) else dict
    items = kind((plain(key, name), plain(item, f"{name}.{key}")) for key, item in value.items())
    if isinstance(value, OrderedDict) and hasattr(value, "_metadata"):
        # The versions of the modules in a state dict, without which some load with a warning or wrongly.
        items._metadata = value._metadata  # type: ignore[attr-defined]
    return items
