"""Query expansion equals fast-reid's, in blocks of any size."""

from __future__ import annotations

import pytest
import torch
from fastreid.evaluation.query_expansion import aqe

from dnreid_plugins.evaluation.query_expansion import expand_features


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("alpha", [1.0, 3.0])
@pytest.mark.parametrize("block", [1, 7, 30, 31])
def test_equal_to_fastreid(times: int, alpha: float, block: int) -> None:
    features = torch.randn(30, 16, generator=torch.Generator().manual_seed(1)) + 0.5
    query, gallery = aqe(features[:9], features[9:], times, 5, alpha)
    ours = expand_features(features, k=5, alpha=alpha, times=times, block=block)
    torch.testing.assert_close(ours, torch.cat([query, gallery]), rtol=1e-4, atol=1e-5)


def test_k_beyond_the_rows_and_negative_cosines_are_no_trouble() -> None:
    features = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    whole = expand_features(features, k=9, alpha=2.0)
    torch.testing.assert_close(whole, torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 1 / 3]]))
    fractional = expand_features(features, k=9, alpha=0.5)
    torch.testing.assert_close(fractional, features / 3)


def test_less_than_one_neighbour_is_refused() -> None:
    with pytest.raises(ValueError, match="QE_K is 0"):
        expand_features(torch.eye(2), k=0)
    with pytest.raises(ValueError, match="QE_TIME 0"):
        expand_features(torch.eye(2), times=0)
