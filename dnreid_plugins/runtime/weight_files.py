"""Reading weight files: no code in a pickle is run, damage is detected, any wrapping is removed."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

#: First bytes of a pickle of protocol 2 or later, and of an archive.
PICKLE, ARCHIVE = b"\x80", b"PK\x03\x04"
WRAPPERS = ("model", "state_dict", "model_state", "model_state_dict", "net", "network")


class WeightFileError(ValueError):
    """A weight file is missing, damaged or unsafe; the message is one sentence that says what to do."""


def read_weight_file(path: str | Path) -> Any:
    """Everything a ``.pth`` or ``.safetensors`` file holds, on the CPU, without running any code of a pickle.

    PyTorch reads a file with flipped bits without any error, so the checksums of the archive are compared too.

    Raises:
        WeightFileError: no such file; damaged; or it holds objects other than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightFileError(f"There is no weight file {path}; correct the path.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        if zipfile.is_zipfile(path):
            _check_archive(path)
        else:
            _check_beginning(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except WeightFileError:
        raise
    except MemoryError:
        raise
    except Exception as error:  # a damaged file may raise almost anything
        raise _explain(path, error) from error


def _check_archive(path: Path) -> None:
    """Compare the checksum of every member. ``zipfile`` reads them as PyTorch's own reader does.

    torch.save compresses nothing, so an archive of members that together are larger than the file is none of its own.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked, size = sum(member.file_size for member in archive.infolist()), path.stat().st_size
        if unpacked > size:
            raise WeightFileError(
                f"{path} is no checkpoint as torch.save writes it: its {size / 2**20:.1f} MiB hold "
                f"{unpacked / 2**20:.1f} MiB in compressed form; use another copy."
            )
        damaged = archive.testzip()
    if damaged is not None:
        raise WeightFileError(f"{path} is damaged: {damaged} has a wrong checksum; use another copy.")


def _check_beginning(path: Path) -> None:
    """A file that is not an archive may be an old pickle; otherwise torch would advise to run its code."""
    with path.open("rb") as file:
        beginning = file.read(8)
    if beginning.startswith(ARCHIVE):
        raise WeightFileError(f"{path} is damaged: its end is missing; use another copy.")
    if not beginning.startswith(PICKLE):
        raise WeightFileError(
            f"{path} is not a checkpoint ({f'it begins with {beginning!r}' if beginning else 'it is empty'}); give a "
            ".pth as torch.save writes it, or a .safetensors."
        )


def _explain(path: Path, error: Exception) -> WeightFileError:
    found = re.search(r"GLOBAL:? ([\w.]+)", str(error))
    if found and not isinstance(error, (zipfile.BadZipFile, zlib.error)):
        return WeightFileError(
            f"{path} holds {found.group(1)} besides tensors and is refused, since loading such an object can "
            f"run code; if you trust it, convert it once with torch.save(model.state_dict(), ...)."
        )
    # The first line of torch's safe loader is advice on how to run the code of such a file.
    own = re.search(r"WeightsUnpickler error: (.*)", str(error))
    reason = own[1] if own else (str(error).splitlines() or [""])[0][:120]
    return WeightFileError(
        f"{path} is damaged or not a PyTorch file ({type(error).__name__}: {reason}); use another copy."
    )


def unwrap(content: Any, path: str | Path = "") -> dict[str, Tensor]:
    """The tensors by name inside a file's content, whatever it was wrapped in.

    Raises:
        WeightFileError: there are no named tensors.
    """
    for _ in range(3):
        wrapped = [content[key] for key in WRAPPERS if isinstance(content, Mapping) and key in content]
        inner = [value for value in wrapped if isinstance(value, Mapping)]
        if not inner:
            break
        content = inner[0]
    if isinstance(content, Mapping):
        named = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if named:
            return named
    raise WeightFileError(
        f"{path} holds no named tensors, neither bare nor under one of {', '.join(WRAPPERS)}; "
        f"save model.state_dict() instead."
    )
