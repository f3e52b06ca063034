"""What a training batch looks like after the encoder."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ..functional.types import Domain


@dataclass(frozen=True)
class BatchFeatures:
    """Features of a batch and what is known of its images.

    Attributes:
        features: ``(B, D)`` after the batch-norm neck, not normalised; carries the gradient.
        pooled: ``(B, P)`` before the neck.
        targets: ``(B,)`` int64, pseudo label within the image's own domain; -1 = none.
        domains: ``(B,)`` int64, 0 day and 1 night.
        indices: ``(B,)`` int64, position in the canonical training list.
        extra: whatever else the head returned, ``(B, ...)`` each; gathered from all processes at every step.
    """

    features: Tensor
    pooled: Tensor
    targets: Tensor
    domains: Tensor
    indices: Tensor
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def unit(self) -> Tensor:
        """``(B, D)`` float32 unit rows: what is compared with prototypes and at test time."""
        return F.normalize(self.features.float(), dim=1)

    def of(self, domain: Domain | int) -> BatchFeatures:
        """The images of one domain only."""
        chosen = self.domains == int(domain)
        extra = {key: value[chosen] for key, value in self.extra.items()}
        return BatchFeatures(
            self.features[chosen],
            self.pooled[chosen],
            self.targets[chosen],
            self.domains[chosen],
            self.indices[chosen],
            extra,
        )

    def detach(self) -> BatchFeatures:
        return replace(self, features=self.features.detach(), pooled=self.pooled.detach(), extra={})
