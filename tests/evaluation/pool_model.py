"""A tiny model that the evaluation tests and the processes they start share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class PoolModel(nn.Module):
    """Mean colour of a 2 x 3 grid; batch norm and dropout behave differently in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.tensor(1 / 255.0))
        self.batches = 0

    def forward(self, batch: dict[str, Any]) -> Tensor:
        self.batches += 1
        assert not torch.is_grad_enabled() and not self.training
        assert batch.get("domains", batch["indices"]).shape == batch["indices"].shape
        images = self.drop(self.norm(batch["images"] * self.scale))
        return nn.functional.adaptive_avg_pool2d(images, (2, 3)).flatten(1)
