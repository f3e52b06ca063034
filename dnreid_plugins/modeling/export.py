"""One domain's encoder as plain PyTorch, for ONNX, ``torch.export`` and ``torch.jit.trace``."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ..functional.types import Domain


class SingleDomain(nn.Module):
    """Images ``(B, 3, H, W)`` of one domain, float32 in 0..255 -> features ``(B, D)``, as from the model."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self, *, backbone: nn.Module, heads: nn.Module, pixel_mean: Tensor, pixel_std: Tensor
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = heads
        self.register_buffer("pixel_mean", pixel_mean.clone())
        self.register_buffer("pixel_std", pixel_std.clone())

    def forward(self, images: Tensor) -> Tensor:
        return self.heads(self.backbone((images - self.pixel_mean) / self.pixel_std))


def single_domain(model: nn.Module, domain: Domain | str | int) -> nn.Module:
    """A copy of a `CrossDomainBaseline` for one domain, in eval mode and without gradients.

    It shares no memory with ``model``; with a single stream both domains give the same copy.
    """
    encoder: Any = model
    result = SingleDomain(
        backbone=encoder.backbone.single(Domain.named(domain)),
        heads=copy.deepcopy(encoder.heads),
        pixel_mean=encoder.pixel_mean,
        pixel_std=encoder.pixel_std,
    )
    return result.requires_grad_(False).eval()
