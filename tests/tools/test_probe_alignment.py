"""The probe of MAA's gradient: its changes per step are those that a small step makes."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import probe_alignment


def test_changes_are_those_of_a_small_step_on_the_sphere() -> None:
    torch.manual_seed(0)
    unit = F.normalize(torch.randn(12, 7, dtype=torch.float64), dim=1)
    gradient = torch.randn(12, 7, dtype=torch.float64)
    masks = {"some": torch.rand(12, 12) > 0.6, "pair": torch.zeros(12, 12, dtype=torch.bool)}
    masks["pair"][3, 8] = True
    found = probe_alignment.changes(unit, gradient, masks)
    along = -(gradient - (gradient * unit).sum(1, keepdim=True) * unit)
    length = 1e-6
    moved = F.normalize(unit + length * along / along.norm(), dim=1)
    for name, mask in masks.items():
        twin = ((moved @ moved.T)[mask].mean() - (unit @ unit.T)[mask].mean()) / length
        torch.testing.assert_close(torch.tensor(found[name]), twin.float(), rtol=1e-4, atol=1e-6)


def test_a_batch_has_eight_clusters_with_four_images_each() -> None:
    import numpy as np

    clusters = torch.arange(120) // 6
    clusters[:30] = -1
    clusters[30:33] = 99  # three images are too few
    places = torch.arange(0, 120)
    drawn = probe_alignment.draw(places, clusters, np.random.default_rng(0))
    names, sizes = torch.unique(clusters[drawn], return_counts=True)
    assert sizes.tolist() == [4] * 8 and not {-1, 99} & set(names.tolist()) and len(set(drawn.tolist())) == 32
