"""Relabelling by dense prototypes against a loop and the figures of the reference."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dnreid_plugins.functional.neighbours import density
from dnreid_plugins.functional.neighbours.density import cluster_density, density_relabel

SIMILARITY = [[1.0, 0.9, 0.9, 0.2], [0.9, 1.0, 0.8, 0.1], [0.9, 0.8, 1.0, 0.6], [0.2, 0.1, 0.6, 1.0]]


def rows_with(similarity: list[list[float]]) -> Tensor:
    """Unit rows whose products are these."""
    return torch.linalg.cholesky(torch.tensor(similarity, dtype=torch.float64))


def naive(f: Tensor, y: Tensor, top: int, threshold: float) -> list[int]:
    prototypes = {}
    for cluster in sorted(set(y.tolist()) - {-1}):
        own = [f[i] for i in range(len(y)) if y[i] == cluster]
        rho = [sum(int(a @ b > threshold) - int(a @ b < threshold) for b in own) for a in own]
        densest = sorted(range(len(own)), key=lambda i: -rho[i])[:top]
        mean = sum(own[i] for i in densest) / len(densest)
        prototypes[cluster] = mean / mean.norm()
    return [
        -1 if y[i] < 0 else max(prototypes, key=lambda cluster: float(f[i] @ prototypes[cluster]))
        for i in range(len(y))
    ]


def test_the_densities_of_the_reference() -> None:
    rows = rows_with(SIMILARITY)
    assert cluster_density(rows, torch.zeros(4, dtype=torch.int64)).tolist() == [2, 2, 4, 0]
    apart = torch.tensor([0, 0, -1, 1])
    assert cluster_density(rows, apart).tolist() == [2, 2, 0, 1]


@pytest.mark.parametrize("block", [2, 1024])
@pytest.mark.parametrize("top", [1, 3, 50])
@pytest.mark.parametrize(("images", "clusters"), [(0, 0), (1, 1), (6, 1), (40, 3), (40, 39)])
def test_relabelling_equals_the_loop(
    monkeypatch: pytest.MonkeyPatch, images: int, clusters: int, top: int, block: int
) -> None:
    monkeypatch.setattr(density, "BLOCK", block)
    generator = torch.Generator().manual_seed(images + clusters)
    f = F.normalize(torch.randn(images, 4, generator=generator, dtype=torch.float64), dim=1)
    y = torch.randint(-1, max(clusters, 1), (images,), generator=generator)
    found = density_relabel(f, y, top, 0.3)
    assert found.tolist() == naive(f, y, top, 0.3)
    assert images < 40 or not torch.equal(found, y)


def test_outliers_stay_and_an_image_at_a_cluster_s_edge_moves() -> None:
    """The image 3 lies at the centre of cluster 1, which cannot see it: its neighbours by density are cluster 0."""
    angles = torch.tensor([0.0, 0.05, 0.1, 1.5, 1.45, 1.5, 1.55, 3.0])
    f = torch.stack([angles.cos(), angles.sin()], dim=1)
    y = torch.tensor([0, 0, 0, 0, 1, 1, 1, -1])
    assert density_relabel(f, y, 3).tolist() == [0, 0, 0, 1, 1, 1, 1, -1]


def test_a_cluster_may_lose_all_of_its_images() -> None:
    """The mean of the two halves of cluster 1 lies between them; both halves are nearer to others."""
    angles = torch.tensor([0.0, 0.02, 0.04, 1.1, 1.12, 1.14, 0.1, 1.0])
    f = torch.stack([angles.cos(), angles.sin()], dim=1)
    y = torch.tensor([0, 0, 0, 2, 2, 2, 1, 1])
    assert density_relabel(f, y, 5).tolist() == [0, 0, 0, 2, 2, 2, 0, 2]


def test_all_outliers_stay_as_they_are_and_no_prototype_is_refused() -> None:
    y = torch.full((3,), -1)
    assert density_relabel(torch.eye(3), y, 2).tolist() == [-1, -1, -1]
    with pytest.raises(ValueError, match="top must be at least 1, got 0; it is the number of images"):
        density_relabel(torch.eye(3), y, 0)
