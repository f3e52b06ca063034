"""Features of a part of the images: a view where they stand together."""

from __future__ import annotations

import torch

from dnreid_plugins.labels import base
from dnreid_plugins.labels.base import make_clusters, rows_at


def test_rows_that_stand_together_are_not_copied() -> None:
    features = torch.randn(9, 3)
    for places, view in (([2, 3, 4], True), ([0], True), ([2, 4], False), ([3, 2], False), ([], False)):
        indices = torch.tensor(places, dtype=torch.int64)
        found = rows_at(features, indices)
        torch.testing.assert_close(found, features[indices], rtol=0, atol=0)
        shared = found.untyped_storage().data_ptr() == features.untyped_storage().data_ptr()
        assert shared == view, places


def test_centroids_are_the_same_bits_part_by_part(monkeypatch) -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(200, 6), torch.randint(-1, 9, (200,))
    indices = torch.arange(200)
    whole = make_clusters(labels, features, indices).centroids
    monkeypatch.setattr(base, "ROWS", 7)
    assert torch.equal(make_clusters(labels, features, indices).centroids, whole)
    assert make_clusters(labels[:0], features[:0], indices[:0]).centroids.shape == (0, 6)
