"""Several processes on one machine or many: gloo on CPU, NCCL on GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastreid.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def wrap_model(model: nn.Module) -> nn.Module:
    """``model`` in DistributedDataParallel when there are several processes."""
    if comm.get_world_size() == 1:
        return model
    on_gpu = next(model.parameters()).is_cuda
    devices = [comm.get_local_rank()] if on_gpu else None
    return DistributedDataParallel(model, device_ids=devices, broadcast_buffers=False)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
) -> Any:
    """fast-reid's ``launch`` for one process; see the scaling guide for several."""
    return main_func(*args)
