"""A matrix to which every process adds its rows: one copy for all processes of a machine, where that is possible."""

from __future__ import annotations

import datetime
import logging
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from fastreid.utils import comm
from torch import Tensor

from ..runtime.group import timeout_minutes

logger = logging.getLogger(__name__)

#: Files here are memory; only Linux has it.
SHARED_MEMORY = Path("/dev/shm")
#: Of a large matrix, that are copied, exchanged or looked at together.
ROWS_AT_ONCE = 16384


class SharedRows:
    """``(N, D)`` float32 zeros before, and after `join` the rows that all processes have written.

    All processes must construct it and call `join` at the same points.

    Args:
        rows: N.
        columns: D; 0 in a process that has no row.

    Attributes:
        matrix: what this process writes its rows to. No two processes may write the same row.
        shared: the processes of a machine have one matrix. Otherwise (one process; a machine without shared memory or
            with too little of it) each has its own.
    """

    def __init__(self, rows: int, columns: int) -> None:
        if comm.get_world_size() == 1:
            self.matrix, self.shared = torch.zeros(rows, columns), False
            return
        columns = int(_of_all(columns, dist.ReduceOp.MAX))
        mapped = _mapped(rows, columns) if _machine() is not None else None
        self.shared = bool(_of_all(int(mapped is not None), dist.ReduceOp.MIN))
        if mapped is None or not self.shared:
            mapped = torch.zeros(rows, columns)
        self.matrix = mapped

    def join(self) -> Tensor:
        """The matrix with the rows of all processes."""
        if not self.shared:
            summed(self.matrix)
            return self.matrix
        dist.barrier(group=_machine())
        leaders = _leaders(_machine())
        if leaders is not None and comm.get_local_rank() == 0:
            summed(self.matrix, leaders)
        dist.barrier(group=_machine())
        return self.matrix


def summed(matrix: Tensor, group: Any = None) -> None:
    """Sum over processes, in place: each fills its own rows and leaves all others zero, so the sum is exact."""
    if comm.get_world_size() == 1:
        return
    device = _device() if group is None else torch.device("cpu")
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        part = matrix[start : start + ROWS_AT_ONCE].to(device)
        dist.all_reduce(part, group=group)
        matrix[start : start + ROWS_AT_ONCE] = part.cpu()


def can_share(size: int) -> bool:
    """Whether this machine has ``size`` bytes for memory that several processes see."""
    return SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free >= size


def _mapped(rows: int, columns: int) -> Tensor | None:
    """The matrix that the processes of this machine share; None if it cannot be had."""
    group = _machine()
    first = dist.get_global_rank(group, 0)
    size = 4 * rows * columns
    path = [_file_of(size) if comm.get_local_rank() == 0 and size else ""]
    dist.broadcast_object_list(path, src=first, group=group)
    if not path[0]:
        return None
    try:
        return torch.from_file(path[0], shared=True, size=rows * columns).view(rows, columns)
    except (OSError, RuntimeError):
        return None
    finally:
        dist.barrier(group=group)
        if comm.get_local_rank() == 0:  # it lives on until the last process lets go of it
            Path(path[0]).unlink()


def _file_of(size: int) -> str:
    """The name of a new file of ``size`` zero bytes in memory; "" if there is no room."""
    path = ""
    try:
        descriptor, path = tempfile.mkstemp(prefix="dnreid-", dir=SHARED_MEMORY)
        try:
            os.posix_fallocate(descriptor, 0, size)
        finally:
            os.close(descriptor)
    except (OSError, AttributeError) as error:  # AttributeError: neither macOS nor Windows can reserve it
        if path:
            Path(path).unlink(missing_ok=True)
        logger.info("Every process has its own copy of all features: no shared memory (%s).", error)
        return ""
    return path


def _machine() -> Any:
    """The group of this machine's processes; None if whoever started them has made none."""
    return comm._LOCAL_PROCESS_GROUP


@cache
def _leaders(machine: Any) -> Any:
    """The group of one process of each machine, on the CPU; None with one machine. All processes must call this."""
    every: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(every, dist.get_global_rank(machine, 0))
    first = sorted(set(every))
    timeout = datetime.timedelta(minutes=timeout_minutes())
    return dist.new_group(first, backend="gloo", timeout=timeout) if len(first) > 1 else None


def _of_all(value: int, operation: Any) -> int:
    number = torch.tensor(value, device=_device())
    dist.all_reduce(number, op=operation)
    return int(number)


def _device() -> torch.device:
    nccl = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
