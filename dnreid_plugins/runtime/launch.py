"""fast-reid's ``launch``: one process, those of torchrun, or as many as requested."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch.distributed as dist

from .devices import device_type
from .group import Member, joined
from .spawn import run_processes


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int = 1,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
) -> Any:
    """fast-reid's ``launch``: run ``main_func(*args)`` in as many processes as requested.

    Under ``torchrun`` this process is one of the job's, and the numbers given here are ignored. Otherwise
    ``num_gpus_per_machine`` processes are started here: one per GPU, or on CPU where the config in ``args``
    says ``MODEL.DEVICE cpu``. Returns the result of ``main_func`` (of rank 0 if processes are started here).

    Raises:
        LostProcessError: a process of the job died; the others are ended with this message.
        ValueError: fewer GPUs than requested, or a ``dist_url`` that several machines cannot share.
    """
    if dist.is_initialized():
        return main_func(*args)
    if "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        member = torchrun_member()
        if member.world_size == 1:
            return main_func(*args)
        with joined(member, device=device_type(args)):
            return main_func(*args)
    if num_gpus_per_machine * num_machines <= 1:
        return main_func(*args)
    return run_processes(
        main_func,
        args,
        per_machine=num_gpus_per_machine,
        num_machines=num_machines,
        machine=machine_rank,
        dist_url=dist_url,
        device=device_type(args),
    )


def torchrun_member() -> Member:
    """This process as ``torchrun`` describes it in the environment.

    Raises:
        ValueError: a variable is missing or not a number.
    """
    try:
        rank, world, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        per_machine = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        machine = int(os.environ.get("GROUP_RANK", rank // per_machine))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"The environment of torchrun is incomplete ({error}); start the job with torchrun "
            "--nproc_per_node N SCRIPT, or unset RANK, WORLD_SIZE and LOCAL_RANK."
        ) from None
    return Member(rank, world, local, machine, "env://")
