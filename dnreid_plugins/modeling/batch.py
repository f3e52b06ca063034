"""A training batch after the encoder."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..functional.types import Domain, StreamName


@dataclass(frozen=True)
class BatchFeatures:
    """Features of a batch and what is known about its images.

    Attributes:
        features: ``(B, D)`` after the batch-norm neck, not normalised; carries the gradient.
        pooled: ``(B, P)`` before the neck.
        targets: ``(B,)`` int64, pseudo label within the image's own domain; -1 = none.
        domains: ``(B,)`` int64, 0 day and 1 night.
        indices: ``(B,)`` int64, position in the canonical training list.
        cams: ``(B,)`` int64, number of the camera; -1 = unknown.
        views: ``(B,)`` int64, which view of the image this is; 0 = the plain one.
        stream: what the batch was drawn from.
        extra: further outputs of the head by name, if it declares that parts use them; ``"teacher"``: what the
            teacher makes of the same images, ``(B, D)`` without gradient, if an active part asks for it.
    """

    features: Tensor
    pooled: Tensor
    targets: Tensor
    domains: Tensor
    indices: Tensor
    cams: Tensor = field(default_factory=lambda: torch.empty(0))
    views: Tensor = field(default_factory=lambda: torch.empty(0))
    stream: StreamName = "domains"
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in (("cams", -1), ("views", 0)):
            if len(getattr(self, name)) != len(self.targets):
                object.__setattr__(self, name, torch.full_like(self.targets, value))

    @property
    def unit(self) -> Tensor:
        """``(B, D)`` float32 unit rows: compared with prototypes, and used at test time."""
        return F.normalize(self.features.float(), dim=1)

    def where(self, chosen: Tensor) -> BatchFeatures:
        """A subset of the images: a mask ``(B,)``, or positions in any order."""
        if chosen.dtype == torch.bool:  # once, not for every tensor: a GPU waits for the number of images
            chosen = chosen.nonzero().flatten()
        rows = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("stream", "extra")}
        return replace(
            self,
            **{name: value[chosen] for name, value in rows.items()},
            extra={key: value[chosen] for key, value in self.extra.items()},
        )

    def of(self, domain: Domain | int) -> BatchFeatures:
        """The images of one domain only."""
        return self.where(self.domains == int(domain))

    def detach(self) -> BatchFeatures:
        extra = {key: value.detach() for key, value in self.extra.items()}
        return replace(self, features=self.features.detach(), pooled=self.pooled.detach(), extra=extra)
