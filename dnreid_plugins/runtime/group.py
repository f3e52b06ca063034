"""Several processes on one machine or many: gloo on CPU, NCCL on GPU."""

from __future__ import annotations

import datetime
import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
import torch.distributed as dist
from fastreid.utils import comm

logger = logging.getLogger(__name__)

#: A process that does not answer for this long counts as lost; a share of the label phase must be shorter.
TIMEOUT_MINUTES = 120.0
#: Messages of gloo, NCCL and the store when another process is gone. This process's own errors may also mention NCCL
#: or a timeout and must stay as they are, e.g. out of memory or tensors of unequal size (gloo's "preamble").
LOST_PEER = re.compile(
    r"connection (was likely )?(closed|reset|refused)|broken pipe|socket (closed|timeout|has timed out)|"
    r"(timed out|timeout) waiting|timed out after \d+ \w+ waiting|wait timeout|operation timeout|before timing out|"
    r"remote process exit|remote server shut|failed to recv, got 0 bytes|communicator was aborted|"
    r"\[[^\]]*gloo/[^\]]*\](?! op\.preamble)",
    re.IGNORECASE,
)


class LostProcessError(SystemExit):
    """Another process of the job died or does not answer; ends this one with the message and exit code 1."""


@dataclass(frozen=True)
class Member:
    """The place of this process in the job.

    Attributes:
        rank, world_size: among all processes.
        local_rank, machine: among those of its machine, and the number of that machine.
        init_method: where the processes meet: ``"env://"``, ``"tcp://host:port"`` or ``"file:///path"``.
    """

    rank: int
    world_size: int
    local_rank: int
    machine: int
    init_method: str


@contextmanager
def joined(member: Member, *, device: str) -> Iterator[None]:
    """Inside, this process belongs to the job's process group; it leaves the group at the end.

    Raises:
        LostProcessError: in place of the errors that PyTorch raises when another process is gone.
        ValueError: the machine has fewer GPUs than processes, or the port to meet at is taken.
    """
    warnings.filterwarnings("ignore", "TypedStorage is deprecated", module="fastreid")
    if device == "cuda":
        if member.local_rank >= torch.cuda.device_count():
            raise ValueError(
                f"Process {member.local_rank} of this machine finds {torch.cuda.device_count()} GPUs; ask for as "
                "many processes as there are GPUs, or set MODEL.DEVICE cpu."
            )
        torch.cuda.set_device(member.local_rank)
    timeout = datetime.timedelta(minutes=timeout_minutes())
    fastreids_gloo_group = comm._get_global_gloo_group
    failed = False
    try:
        dist.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=member.init_method,
            rank=member.rank,
            world_size=member.world_size,
            timeout=timeout,
        )
        _make_groups(member.machine, timeout)
        yield
    except SystemExit:  # all processes were asked to shut down
        raise
    except RuntimeError as error:
        failed = True
        if "EADDRINUSE" in str(error):
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"Process {member.rank} of {member.world_size} cannot meet the others ({reason}); give another port "
                "(torchrun --master_port, or --dist-url), or end what is left of an earlier job."
            ) from None
        if not LOST_PEER.search(str(error)):
            raise
        logger.exception("process %d of %d cannot continue:", member.rank, member.world_size)
        text = re.sub(r"\[[^\]]*gloo/[^\]]*\] ", "", " ".join(str(error).split()))[:100]
        raise LostProcessError(
            f"error: process {member.rank} of {member.world_size} lost another process of the job ({text} ...); "
            "see the message of that process, then continue with --resume."
        ) from None
    except BaseException:
        failed = True
        raise
    finally:
        comm._LOCAL_PROCESS_GROUP = None
        comm._get_global_gloo_group = fastreids_gloo_group
        comm._get_global_gloo_group.cache_clear()
        _leave(failed=failed)


def _leave(*, failed: bool) -> None:
    """Destroying an NCCL group may wait for the others; a process with an error must report it and end instead."""
    if dist.is_initialized() and not (failed and dist.get_backend() == "nccl"):
        dist.destroy_process_group()


def _make_groups(machine: int, timeout: datetime.timedelta) -> None:
    """Tell fast-reid which processes share this machine, and which group all of them use on the CPU.

    Machines may have different numbers of processes. A group made without ``timeout`` would have PyTorch's default (30
    minutes on gloo), and it is the CPU group that waits in the label phase.
    """
    machines: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(machines, machine)
    for one in sorted(set(machines)):
        group = dist.new_group([rank for rank, where in enumerate(machines) if where == one], timeout=timeout)
        if one == machine:
            comm._LOCAL_PROCESS_GROUP = group
    if dist.get_backend() == "nccl":
        on_cpu = dist.new_group(backend="gloo", timeout=timeout)
        comm._get_global_gloo_group = cache(lambda: on_cpu)


def timeout_minutes() -> float:
    """`TIMEOUT_MINUTES`, or the value of the environment variable ``DNREID_TIMEOUT_MINUTES``.

    Raises:
        ValueError: it is not a positive number.
    """
    text = os.environ.get("DNREID_TIMEOUT_MINUTES", str(TIMEOUT_MINUTES))
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not minutes > 0:
        raise ValueError(f"DNREID_TIMEOUT_MINUTES is {text!r}; it must be a number of minutes above 0.")
    return minutes
