"""Which device a job runs on, before and after its config is read, and how much memory is free."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fastreid.utils import comm

from .config_files import read_config_file

#: Bytes.
GIB = 2.0**30


def device_type(args: tuple[Any, ...]) -> str:
    """``"cuda"`` or ``"cpu"``: ``MODEL.DEVICE`` of the command line in ``args``, else what the machine has.

    A device that torch does not know counts as ``"cpu"``; the pre-flight check refuses it in the processes.

    Raises:
        ConfigError: the config file cannot be read.
    """
    for one in args:
        device = _device_of(getattr(one, "config_file", ""), list(getattr(one, "opts", None) or ()))
        if device:
            try:
                return torch.device(device).type
            except RuntimeError:
                return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _device_of(config_file: str, opts: list[str]) -> str:
    """``MODEL.DEVICE`` of a command line, empty if it is not given. Unknown keys are checked elsewhere."""
    for key, value in reversed(list(zip(opts[::2], opts[1::2]))):
        if key == "MODEL.DEVICE":
            return str(value)
    section = read_config_file(Path(config_file)).get("MODEL") if config_file else None
    return str(section.get("DEVICE", "")) if isinstance(section, Mapping) else ""


def use_device(name: str) -> None:
    """Make the CUDA device ``name`` the current one if it has a number, e.g. ``"cuda:1"``.

    Generators, loss scaling and everything else that asks for ``"cuda"`` then use the model's device. With several
    processes each has its own device already, see `joined`.
    """
    device = torch.device(name)
    if device.type == "cuda" and ":" in name and comm.get_world_size() == 1:
        torch.cuda.set_device(device)


def available_memory() -> int | None:
    """Bytes that this machine, or the container it is in, has available; None if unknown."""
    found = []
    info = Path("/proc/meminfo")
    if info.is_file():
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            found.append(int(lines["MemAvailable"].split()[0]) * 1024)
    limit, used = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdigit():
        found.append(int(limit.read_text()) - int(used.read_text()))
    return min(found) if found else None
