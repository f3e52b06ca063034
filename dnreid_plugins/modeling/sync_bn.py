"""Batch norm over the batch of all processes, also on CPU (PyTorch's own is for GPUs only)."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from fastreid.utils import comm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Normalize(torch.autograd.Function):
    """``(x - mean) / sqrt(var + eps)`` with mean and variance of all processes' values, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims = [d for d in range(x.dim()) if d != 1]
        own = x.float()
        count = own.numel() / own.shape[1]
        mean = own.mean(dim=dims)
        spread = (own - _channels(mean, own)).square().sum(dim=dims)
        mean, spread, total = _combined(mean.double(), spread.double(), count)
        if total < 2:
            raise ValueError(
                "Batch norm got one value per channel from all processes together; give it more images."
            )
        var = spread / total
        scale = torch.rsqrt(var + eps).float()
        normal = (own - _channels(mean.float(), own)) * _channels(scale, own)
        ctx.save_for_backward(normal, scale)
        ctx.total, ctx.dims, ctx.dtype = total, dims, x.dtype
        number = torch.tensor(total)
        ctx.mark_non_differentiable(mean, var, number)
        return normal, mean, var, number

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        normal, scale = ctx.saved_tensors
        gradient = gradients[0]
        sums = torch.stack([gradient.sum(dim=ctx.dims), (gradient * normal).sum(dim=ctx.dims)]).double()
        dist.all_reduce(sums)
        mean_gradient, mean_product = (sums / ctx.total).float()
        inner = gradient - _channels(mean_gradient, normal) - normal * _channels(mean_product, normal)
        return (inner * _channels(scale, normal)).to(ctx.dtype), None


def _channels(vector: Tensor, like: Tensor) -> Tensor:
    """``(C,)`` -> ``(1, C, 1, ...)`` with as many dimensions as ``like``."""
    return vector.view(1, -1, *[1] * (like.dim() - 2))


def _combined(mean: Tensor, spread: Tensor, count: float) -> tuple[Tensor, Tensor, float]:
    """Mean, sum of squared deviations and count of all processes from those of each (Chan et al. 1979)."""
    own = torch.cat([mean, spread, mean.new_tensor([count])])
    parts = [torch.empty_like(own) for _ in range(comm.get_world_size())]
    dist.all_gather(parts, own)
    table = torch.stack(parts)
    means, spreads = table[:, : len(mean)], table[:, len(mean) : -1]
    counts = table[:, -1:]
    total = counts.sum()
    whole = (counts * means).sum(dim=0) / total
    return whole, (spreads + counts * (means - whole).square()).sum(dim=0), float(total)


class SyncBatchNorm(_BatchNorm):
    """`nn.BatchNorm` whose statistics in train mode are those of the global batch; same parameters and buffers.

    It differs from the single-process layer by rounding only. It takes inputs ``(B, C, ...)`` of any
    dimension; statistics are computed in float32 for any input dtype.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"Batch norm got shape {tuple(input.shape)}; it needs (B, C, ...).")

    def forward(self, input: Tensor) -> Tensor:
        # In eval mode the processes may have different numbers of batches, so statistics are not exchanged.
        if comm.get_world_size() == 1 or not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        normal, mean, var, total = _Normalize.apply(input, self.eps)
        if self.track_running_stats:
            self._track(mean, var * total / (total - 1))
        if self.affine:
            normal = normal * _channels(self.weight, normal) + _channels(self.bias, normal)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased_var)):
            assert running is not None
            running.mul_(1 - momentum).add_(value.to(running), alpha=momentum)


def convert_batch_norms(model: nn.Module) -> nn.Module:
    """``model`` with every plain batch norm synchronised across processes; parameters stay the same objects.

    Layers that are not plain batch norm (e.g. ghost batch norm) are left unchanged, see
    `unsynchronised`. On a GPU PyTorch's own `nn.SyncBatchNorm` is used.
    """
    for name, child in list(model.named_children()):
        if isinstance(child, _BatchNorm) and type(child).forward is _BatchNorm.forward:
            setattr(model, name, _synchronised(child))
        else:
            convert_batch_norms(child)
    return model


def unsynchronised(model: nn.Module) -> list[str]:
    """Names of the batch norms of ``model`` whose statistics are those of the process's own images."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, (SyncBatchNorm, nn.SyncBatchNorm))
    ]


def _synchronised(layer: _BatchNorm) -> nn.Module:
    on_gpu = any(t.is_cuda for t in (layer.weight, layer.running_mean) if t is not None)
    kind: type[_BatchNorm] = nn.SyncBatchNorm if on_gpu else SyncBatchNorm
    new = kind(layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    new.__dict__.update(
        {k: v for k, v in layer.__dict__.items() if k in ("_parameters", "_buffers", "training")}
    )
    return new
