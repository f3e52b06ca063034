"""The batch of all processes, in the order of a single process."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from fastreid.utils import comm
from torch import Tensor

from ..functional.types import Domain
from .batch import BatchFeatures


class _GatherRows(torch.autograd.Function):
    """Concatenated rows of all processes; every process must have the same number."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(comm.get_world_size())]
        dist.all_gather(parts, rows)
        ctx.own = slice(dist.get_rank() * len(rows), (dist.get_rank() + 1) * len(rows))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Every process computes the same loss of the same rows, so it already has the whole gradient of its own rows.
        # DistributedDataParallel then averages over processes, where the sum would be correct.
        return gradients[0][ctx.own] * comm.get_world_size()


def gather_rows(rows: Tensor) -> Tensor:
    """``(B, ...)`` of this process -> ``(world_size * B, ...)`` of all, by rank; the gradient flows back.

    Under `DistributedDataParallel`, and with the same loss computed from the result in every process, the
    parameters get the gradient of that loss as in a single process.
    """
    return _GatherRows.apply(rows.contiguous()) if comm.get_world_size() > 1 else rows


class _ShareRows(_GatherRows):
    """The same rows, of which each process makes something of its own."""

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous()
        dist.all_reduce(whole)
        return whole[ctx.own]


def share_rows(rows: Tensor) -> Tensor:
    """``(B, ...)`` -> ``(world_size * B, ...)`` by rank, for use inside the encoder.

    Unlike after `gather_rows` each process goes on with its own images, so the gradients of all of them are added.
    """
    return _ShareRows.apply(rows.contiguous()) if comm.get_world_size() > 1 else rows


class _InEveryProcess(torch.autograd.Function):
    """The same tensor; its gradient is the mean over the processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].clone()
        dist.all_reduce(whole)
        return whole / comm.get_world_size()


def in_every_process(tensor: Tensor) -> Tensor:
    """A tensor of a part for use inside the encoder, where each process has images of its own.

    `DistributedDataParallel` leaves the gradients of parts as they are, since a loss gives every process the same one.
    """
    return _InEveryProcess.apply(tensor) if comm.get_world_size() > 1 else tensor


def check_composition(domains: Tensor) -> None:
    """Raise in *all* processes if they do not have equally many images of each domain; ``domains`` (B,).

    Otherwise a batch norm of one domain's stem would wait for processes that never reach it.

    Raises:
        ValueError: with the counts of every process.
    """
    if comm.get_world_size() == 1:
        return
    own = torch.stack([(domains == domain).sum() for domain in Domain])[None]
    counts = _GatherRows.apply(own).tolist()
    if any(count != counts[0] for count in counts):
        raise ValueError(
            f"The processes have (day, night) images {counts} in one batch; each must have equally many: make "
            "SOLVER.IMS_PER_BATCH a multiple of the number of processes."
        )


def gather_batch(batch: BatchFeatures) -> BatchFeatures:
    """The global batch: day images of rank 0, 1, ..., then the night images, in the order of a single process."""
    if comm.get_world_size() == 1:
        # The batches of a union come in any order of domains; several processes put them into this one.
        key = batch.domains * (1 + batch.views.max()) + batch.views
        return batch.where(torch.argsort(key, stable=True)) if batch.stream == "union" else batch
    names = ("targets", "domains", "indices", "cams", "views")
    whole = gather_rows(torch.stack([getattr(batch, name) for name in names], dim=1))
    # The sampler gives each rank a slice of each view's day part, then of each view's night part.
    order = torch.argsort(whole[:, 1] * (1 + whole[:, 4].max()) + whole[:, 4], stable=True)
    return BatchFeatures(
        gather_rows(batch.features)[order],
        gather_rows(batch.pooled)[order],
        **dict(zip(names, whole[order].unbind(dim=1))),
        stream=batch.stream,
        extra={key: gather_rows(value)[order] for key, value in batch.extra.items()},
    )
