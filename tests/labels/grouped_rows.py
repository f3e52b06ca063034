"""Features of a training set, as label sources get them."""

from __future__ import annotations

import numpy as np
import torch

from dnreid_plugins.functional.types import Epoch
from dnreid_plugins.labels import Labels, LabelSource, TrainImages


def grouped(num: int, groups: int, *, seed: int = 0, noise: float = 0.05) -> torch.Tensor:
    """``(num, 16)`` unit rows around ``groups`` centres, or anywhere for 0 groups."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num, 16, generator=generator)
    if groups:
        rows = torch.randn(groups, 16, generator=generator)[torch.arange(num) % groups] + noise * rows
    return torch.nn.functional.normalize(rows, dim=1)


def images(domains: torch.Tensor, ids: list[int] | None = None) -> TrainImages:
    """Images of these domains, each of a camera of its own; with identities where ``ids`` are given."""
    return TrainImages(domains, torch.arange(len(domains)), None if ids is None else np.array(ids))


def labelled(source: LabelSource, day: torch.Tensor, night: torch.Tensor) -> Epoch:
    """Epoch 3 of 9."""
    domains = torch.tensor([0] * len(day) + [1] * len(night))
    return Labels(source)(torch.cat([day, night]), images(domains), number=3, last=9)
