"""Relabelling of the images of clusters by the prototypes of their densest parts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 1024
"""Rows per product."""


@torch.no_grad()
def cluster_density(f: Tensor, y: Tensor, threshold: float = 0.5) -> Tensor:
    """``(N,)`` int64: images of an image's own cluster more similar than ``threshold``, minus the less similar ones.

    Args:
        f: ``(N, D)`` unit rows.
        y: ``(N,)`` int64 clusters on the device of ``f``; -1 = outlier, whose density is 0.
        threshold: of the cosine. An image counts itself; a cosine equal to the threshold counts nothing.
    """
    density = torch.zeros(len(y), dtype=torch.int64, device=f.device)
    for members in _members(y):
        own = f[members]
        for part, rows in zip(members.split(BLOCK), own.split(BLOCK), strict=True):
            density[part] = torch.sign(rows @ own.T - threshold).sum(dim=1).to(torch.int64)
    return density


@torch.no_grad()
def density_relabel(f: Tensor, y: Tensor, top: int, threshold: float = 0.5) -> Tensor:
    """Every clustered image gets the label of the nearest prototype: the mean of a cluster's ``top`` densest images.

    Args:
        f: ``(N, D)`` unit rows.
        y: ``(N,)`` int64 in ``-1 .. C-1`` on the device of ``f``; -1 = outlier, which stays one.
        top: images that make a prototype; all of them if the cluster has fewer. Among equal densities (see
            `cluster_density`) the earlier image.
        threshold: of the cosine.

    Returns:
        ``(N,)`` int64 in the numbering of ``y``; a cluster may have lost all of its images. Among equally near
        prototypes the lower number. Memory grows with ``N`` and with the largest cluster, not with ``N^2``.

    Raises:
        ValueError: if ``top`` is below 1.
    """
    if top < 1:
        raise ValueError(
            f"top must be at least 1, got {top}; it is the number of images that make a prototype, usually 20."
        )
    result = y.clone()
    clustered = (y >= 0).nonzero().flatten()
    if len(clustered) == 0:
        return result
    density = cluster_density(f, y, threshold)
    prototypes = []
    for members in _members(y):
        densest = members[torch.argsort(density[members], descending=True, stable=True)[:top]]
        prototypes.append(F.normalize(f[densest].mean(dim=0), dim=0))
    rows = torch.stack(prototypes)
    nearest = torch.cat([(part @ rows.T).argmax(dim=1) for part in f[clustered].split(BLOCK)])
    result[clustered] = torch.unique(y[clustered])[nearest]
    return result


def _members(y: Tensor) -> list[Tensor]:
    """Positions of the images of each cluster that has any, by cluster number, ascending."""
    order = torch.argsort(y, stable=True)
    order = order[int((y < 0).sum()) :]
    sizes = torch.unique_consecutive(y[order], return_counts=True)[1].tolist()
    return list(order.split(sizes))
