"""Atomic writing of files: a kill, a full disk or a concurrent reader never leaves or sees half a file."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEMPORARY_SUFFIX, LOCK_SUFFIX = ".part", ".lock"
#: Random, since two containers that share a disk may have the same process id.
_TEMPORARY = re.compile(rf"\..+\.[0-9a-f]{{16}}{re.escape(TEMPORARY_SUFFIX)}")


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call ``write`` on a temporary file next to ``path``, flush it to the disk, then rename it to ``path``.

    On any error the temporary file is removed, the old ``path`` stays as it was and the error is raised.
    """
    path = Path(path)
    temporary = temporary_name(path)
    try:
        with temporary.open("xb") as file:
            lock(file)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = str(path)  # a write knows no name, and the temporary one says nothing
        raise
    sync_folder(path.parent)


def hash_of(file: IO[bytes], digest: Any) -> str:
    """The hex digits of one of hashlib's ``digest`` over an open file, read block by block."""
    while block := file.read(1 << 20):
        digest.update(block)
    digits: str = digest.hexdigest()
    return digits


def remove_leftovers(folder: str | Path) -> None:
    """Delete the temporary files that killed runs left in ``folder``; those of living writers and others' stay."""
    for path in Path(folder).glob(f".*{TEMPORARY_SUFFIX}"):
        if _TEMPORARY.fullmatch(path.name) and path.is_file():
            with contextlib.suppress(OSError), path.open("r+b") as file:
                if lock(file):
                    path.unlink(missing_ok=True)


def force_to_disk(path: str | Path) -> None:
    """What others have written to the file ``path`` survives a power cut from here on; nothing without a file."""
    if Path(path).is_file():
        with Path(path).open("rb") as file:
            os.fsync(file.fileno())


@contextlib.contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` that is renamed to it when it is complete; else it is gone afterwards.

    Those that killed writers of the same ``path`` left are deleted first: each has a file beside it that its writer
    keeps locked as long as it lives.
    """
    _remove_folders_of_the_dead(path)
    while True:
        folder = temporary_name(path)
        mark = folder.with_suffix(LOCK_SUFFIX)
        with mark.open("xb") as file:
            lock(file)
            if not mark.exists():  # taken for a dead writer's before it was locked
                continue
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
                mark.unlink(missing_ok=True)
        return


def _remove_folders_of_the_dead(path: Path) -> None:
    for mark in path.parent.glob(f".{path.name}.*{LOCK_SUFFIX}"):
        folder = mark.with_suffix(TEMPORARY_SUFFIX)
        if _TEMPORARY.fullmatch(folder.name):
            with contextlib.suppress(OSError), mark.open("r+b") as file:
                if lock(file):
                    shutil.rmtree(folder, ignore_errors=True)
                    mark.unlink(missing_ok=True)


def temporary_name(path: Path) -> Path:
    """A new name beside ``path``, of the pattern that `remove_leftovers` knows."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")


def lock(file: IO[bytes]) -> bool:
    """Lock an open file until it is closed or its process dies; False if somebody else has, or nobody can here."""
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (OSError, AttributeError):  # in use; a file system or a platform without such locks
        return False
    return True


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Where the file system locks files, runs that begin at the same moment look one after the other."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders
        yield
        return
    try:
        with contextlib.suppress(OSError, AttributeError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename durable. Some file systems cannot sync a folder; the rename itself has been done."""
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
    """``value`` with everything that PyTorch's safe loader refuses converted to types that it accepts.

    numpy scalars and enums become Python numbers, paths become strings, config nodes and other mappings
    become dicts, named tuples become tuples; tensors are unchanged.

    Raises:
        TypeError: an object has no such counterpart; the message names its place.
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
