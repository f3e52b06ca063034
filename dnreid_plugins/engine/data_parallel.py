"""The model in several processes: gradients are averaged, running statistics agree, parts are not exchanged."""

from __future__ import annotations

import inspect
from typing import Any

import torch.distributed as dist
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..modeling.parts import names_of_parts
from ..modeling.sync_bn import convert_batch_norms, unsynchronised


def wrap_model(model: nn.Module, *, sync_bn: bool = False) -> nn.Module:
    """``model`` in DistributedDataParallel when there are several processes, unchanged for one.

    ``sync_bn`` makes its batch norms use the statistics of the global batch.
    """
    if comm.get_world_size() == 1:
        return model
    if sync_bn:
        convert_batch_norms(model)
    on_gpu = next(model.parameters()).is_cuda
    devices = [comm.get_local_rank()] if on_gpu else None
    # The option was renamed in PyTorch 2.15.
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    # A domain left out of an epoch, a frozen layer or a head that starts later gets no gradient temporarily.
    options: dict[str, Any] = {"find_unused_parameters": True, sync: not sync_bn}
    # Parts may be resized each epoch and need no exchange: see `modeling.parts`.
    alone = names_of_parts(model)
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, alone)
    return DistributedDataParallel(model, device_ids=devices, **options)


def needs_same_buffers(model: nn.Module, *, sync_bn: bool) -> bool:
    """Whether the running statistics of several processes diverge within an epoch; see `SameBuffers`."""
    return comm.get_world_size() > 1 and (not sync_bn or bool(unsynchronised(model)))


class SameBuffers(HookBase):
    """At an epoch's end all processes copy rank 0's running statistics.

    For batch norm that is not synchronised: without ``sync_bn``, or of a kind that cannot be (ghost batch norm).
    """

    def after_epoch(self) -> None:
        model = self.trainer.bare_model
        parts = names_of_parts(model)
        for name, buffer in model.named_buffers():
            if name not in parts:
                dist.broadcast(buffer, src=0)
