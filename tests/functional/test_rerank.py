"""Re-ranking distances equal fast-reid's CPU path."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.utils.compute_dist import compute_jaccard_distance

from dnreid_plugins.functional.ranking.rerank import jaccard_distances


@pytest.mark.parametrize(("k1", "k2"), [(10, 3), (6, 1)])
def test_equal_to_fastreid(k1: int, k2: int) -> None:
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(8, 12, generator=generator).repeat_interleave(6, dim=0)
    features = F.normalize(centres + 0.6 * torch.randn(48, 12, generator=generator), dim=1)
    features = features[torch.randperm(48, generator=generator)]
    theirs = compute_jaccard_distance(features, k1=k1, k2=k2, search_option=3)[:20, 20:]
    ours = jaccard_distances(features[:20], features[20:], k1=k1, k2=k2)
    assert 0.05 < (ours < 1).mean() < 0.9
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_k1_beyond_the_rows_is_clamped() -> None:
    features = F.normalize(torch.randn(6, 4, generator=torch.Generator().manual_seed(3)), dim=1)
    few = jaccard_distances(features[:2], features[2:], k1=50, k2=2)
    assert few.shape == (2, 4) and np.isfinite(few).all()
