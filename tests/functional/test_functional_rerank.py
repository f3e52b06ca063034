"""k-reciprocal re-ranking through the sparse graph against fast-reid's dense distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastreid_twin import fastreid_jaccard, make_features

from dnreid_plugins.functional.knn import knn_table
from dnreid_plugins.functional.ranking import rank_metrics
from dnreid_plugins.functional.rerank import jaccard_mixer


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_mixes_what_fastreid_mixes(weight: float, scale: float) -> None:
    rows = make_features("clusters", 150, 16, 0)
    query, gallery = rows[:50], rows[50:]
    original = (1 - query @ gallery.T).numpy()
    table = knn_table(rows, 20).indices
    jaccard = fastreid_jaccard(rows, table, k1=20, k2=6)[:50, 50:]
    mix = jaccard_mixer(scale * query, scale * gallery, weight=weight)
    for start in (0, 13, 40):
        block = original[start : start + 20].copy()
        mix(block, start)
        expected = jaccard[start : start + 20] * (1 - weight) + original[start : start + 20] * weight
        np.testing.assert_allclose(block, expected, atol=3e-6)


def test_improves_the_ranking_of_blurred_clusters_for_any_block() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.arange(240) % 12
    features = torch.randn(12, 32, generator=generator)[ids] + 1.6 * torch.randn(240, 32, generator=generator)
    query, gallery = features[:60], features[60:]
    sides = (query, gallery, ids[:60].numpy(), ids[60:].numpy())
    plain = rank_metrics(*sides)
    mixer = jaccard_mixer(query, gallery)
    results = [rank_metrics(*sides, adjust=mixer, block=block) for block in (1, 7, 512)]
    assert results[0] == pytest.approx(results[1], abs=1e-9)
    assert results[0] == pytest.approx(results[2], abs=1e-9)
    assert results[0]["mAP"] > plain["mAP"] + 2


def test_fewer_images_than_neighbours() -> None:
    features = torch.eye(4)
    mix = jaccard_mixer(features[:2], features[2:], k1=20)
    block = np.ones((2, 2), dtype=np.float32)
    mix(block, 0)
    assert np.isfinite(block).all() and block.max() <= 1 + 1e-6


def test_refuses() -> None:
    with pytest.raises(ValueError, match=r"weight must be in \[0, 1\], got 2"):
        jaccard_mixer(torch.eye(2), torch.eye(2), weight=2)
    with pytest.raises(ValueError, match="gallery_features has 1 rows"):
        jaccard_mixer(torch.eye(2), torch.full((1, 2), float("nan")))
