"""Agreement between processes: work done once for all of them, and a check that all hold the same state."""

from __future__ import annotations

import datetime
import hashlib
import logging
import pickle
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from fastreid.utils import comm
from numpy.typing import NDArray
from torch import Tensor

from .group import timeout_minutes

logger = logging.getLogger(__name__)

T = TypeVar("T")


class DisagreementError(RuntimeError):
    """The processes no longer hold the same labels, weights or prototypes; to continue would make no sense."""


def computed_once(work: Callable[[], T]) -> T:
    """Let rank 0 do ``work`` and send its result to all processes; what it raises is raised in all of them.

    The result travels as a pickle between the processes of one job, so it must be plain data or tensors.
    """
    if comm.get_world_size() == 1:
        return work()
    answer: list[Any] = [None, None]
    if comm.is_main_process():
        try:
            answer[0] = work()
        except Exception as error:
            answer[1] = portable(error)
    dist.broadcast_object_list(answer, src=0, group=comm._get_global_gloo_group())
    if answer[1] is not None:
        raise answer[1]
    return answer[0]


def computed_together(work: Callable[[], T]) -> T:
    """Let all processes do ``work``, in which they share parts of it as `peers`; the result is that of rank 0 in all.

    They could compute all of it alike, but processors of different machines may round differently.
    """
    if comm.get_world_size() == 1:
        return work()
    own = work()
    return computed_once(lambda: own)


class ProcessPeers:
    """The other processes of the job, as peers of a k-NN search."""

    def __init__(self) -> None:
        self.rank, self.count = comm.get_rank(), comm.get_world_size()

    def exchange(self, parts: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """``parts[r]`` goes to rank ``r``; what each rank has sent to this one. All are alike but for their axis 0."""
        group = comm._get_global_gloo_group()
        sizes = torch.tensor([part.nbytes for part in parts])
        theirs = torch.empty_like(sizes)
        dist.all_to_all_single(theirs, sizes, group=group)
        sent = torch.from_numpy(np.concatenate([np.ascontiguousarray(one).reshape(-1) for one in parts]))
        found = torch.empty(int(theirs.sum()), dtype=torch.uint8)
        split = (theirs.tolist(), sizes.tolist())
        dist.all_to_all_single(found, sent.view(torch.uint8), *split, group=group)
        like = parts[0]
        return [one.numpy().view(like.dtype).reshape(-1, *like.shape[1:]) for one in found.split(split[0])]


def peers() -> ProcessPeers | None:
    """The processes of this job; None if this is the only one."""
    return ProcessPeers() if comm.get_world_size() > 1 else None


def portable(error: BaseException) -> BaseException:
    """``error`` if it can be sent to another process, else a RuntimeError with its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def any_process(*flags: bool) -> tuple[bool, ...]:
    """Per flag: is it set in any process? All processes must call this at the same point."""
    if comm.get_world_size() == 1:
        return flags
    raised = torch.tensor([int(flag) for flag in flags])
    dist.all_reduce(raised, op=dist.ReduceOp.MAX, group=comm._get_global_gloo_group())
    return tuple(bool(value) for value in raised)


def texts_of_all(text: str) -> list[str]:
    """The ``text`` of every process, by rank: through the store where they met, so texts of any length, or a process
    that runs other code and never answers, cannot make a collective hang.

    Raises:
        RuntimeError: a process gave none within the time limit of the job.
    """
    if comm.get_world_size() == 1:
        return [text]
    store, rank = dist.distributed_c10d._get_default_store(), comm.get_rank()
    # How often this process was here, in this job.
    turn = store.add(f"dnreid/turn/{rank}", 1)
    store.set(f"dnreid/{turn}/{rank}", text)
    keys = [f"dnreid/{turn}/{one}" for one in range(comm.get_world_size())]
    store.wait(keys, datetime.timedelta(minutes=timeout_minutes()))
    return [store.get(key).decode() for key in keys]


def fingerprint(tensors: Iterable[Tensor]) -> str:
    """Twelve hex digits that change with any bit, shape or dtype of the tensors."""
    digest = hashlib.sha256()
    for tensor in tensors:
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:12]


def check_agreement(parts: Mapping[str, Iterable[Tensor]], *, when: str) -> None:
    """Compare every named part across all processes, bit for bit.

    Raises:
        DisagreementError: in all processes, with the parts that differ and the fingerprint of each process.
    """
    if comm.get_world_size() == 1:
        return
    own = {name: fingerprint(tensors) for name, tensors in parts.items()}
    everybody: list[Any] = [None] * comm.get_world_size()
    dist.all_gather_object(everybody, own, group=comm._get_global_gloo_group())
    different = {
        name: [one[name] for one in everybody]
        for name in own
        if any(one[name] != everybody[0][name] for one in everybody)
    }
    if different:
        raise DisagreementError(
            f"At {when} the processes differ in {different}; they must run the same code, versions and files. "
            "Then continue with --resume."
        )
    logger.debug("all %d processes agree at %s: %s", len(everybody), when, own)
