"""One domain's encoder as plain PyTorch, for ONNX, ``torch.export`` and ``torch.jit.trace``."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from ..functional.types import Domain
from .encoder_pass import Context


class SingleDomain(nn.Module):
    """Images ``(B, 3, H, W)`` of one domain, float32 in 0..255 -> features ``(B, D)``, as from the model."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        domain: Domain,
        backbone: nn.Module,
        heads: nn.Module,
        known: dict[str, Tensor],
        pixel_mean: Tensor,
        pixel_std: Tensor,
    ) -> None:
        super().__init__()
        self.domain = domain
        self.backbone = backbone
        self.heads = heads
        self.known = tuple(known)
        for name, tensor in known.items():
            self.register_buffer(f"known_{name}", tensor.detach().clone())
        self.register_buffer("pixel_mean", pixel_mean.clone())
        self.register_buffer("pixel_std", pixel_std.clone())

    def forward(self, images: Tensor) -> Tensor:
        context = Context(images, known={name: getattr(self, f"known_{name}") for name in self.known})
        return self.heads(self.backbone((images - self.pixel_mean) / self.pixel_std, self.domain, context))


def single_domain(model: nn.Module, domain: Domain | str | int) -> nn.Module:
    """A copy of a `CrossDomainBaseline` for one domain, in eval mode and without gradients.

    It shares no memory with ``model``; with a single stream both domains give the same copy. Of a model whose teacher
    is evaluated it is a copy of the teacher.
    """
    encoder: Any = model
    backbone, heads = encoder.answering()
    result = SingleDomain(
        domain=Domain.named(domain),
        backbone=backbone.single(Domain.named(domain)),
        heads=copy.deepcopy(heads),
        known=encoder.parts.for_encoder() if encoder.backbone.has_blocks else {},
        pixel_mean=encoder.pixel_mean,
        pixel_std=encoder.pixel_std,
    )
    return result.requires_grad_(False).eval()
