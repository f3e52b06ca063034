"""Made-up features with the neighbourhoods of real ones: overlapping identities of uneven size, some outliers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

LATENT = 64
"""Dimensions in which identities differ. Noise in all 2048 would leave every two clusters equally far apart."""

SPREAD = 0.9
"""Images around their identity, against identities around the origin; each image has its own factor."""


def clustered(num: int, dim: int, *, images_per_identity: int = 50, seed: int = 0) -> Tensor:
    """``(num, dim)`` float32 unit rows around ``num / images_per_identity`` centres."""
    generator = torch.Generator().manual_seed(seed)
    identities = max(num // images_per_identity, 1)
    shares = torch.randn(identities, generator=generator).mul(0.5).exp()
    own = torch.multinomial(shares, num, replacement=True, generator=generator)
    centres = torch.randn(identities, LATENT, generator=generator)
    return _lifted(centres[own], dim, generator)


def query_and_gallery(
    queries: int, gallery: int, dim: int, *, identities: int, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit rows ``(Q, dim)`` and ``(G, dim)`` with their identities ``(Q,)`` and ``(G,)``, all in the gallery."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(identities, LATENT, generator=generator)
    own = torch.randint(identities, (queries + gallery,), generator=generator)
    own[queries : queries + identities] = torch.arange(identities)[:gallery]
    rows = _lifted(centres[own], dim, generator)
    return rows[:queries].clone(), rows[queries:].clone(), own[:queries], own[queries:]


def _lifted(centres: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Noise around each row in the latent space, turned into ``dim`` dimensions with a little noise in all."""
    num = len(centres)
    spread = SPREAD * torch.randn(num, 1, generator=generator).mul(0.25).exp()
    latent = centres + spread * torch.randn(num, LATENT, generator=generator)
    turn = torch.randn(LATENT, dim, generator=generator) / LATENT**0.5
    features = torch.empty(num, dim)
    for rows, out in zip(latent.split(4096), features.split(4096), strict=True):
        out.copy_(normalize(rows @ turn + 0.1 * torch.randn(len(rows), dim, generator=generator), dim=1))
    return features
