"""Sets of rows per cluster: which images begin them, and which rows a batch replaces."""

from __future__ import annotations

import pytest
import torch

from dnreid_plugins.functional.memory_update import newest_rows, spread_rows


def test_rows_are_spread_over_a_cluster_s_images_and_few_images_repeat() -> None:
    labels = torch.tensor([1, 0, -1, 1, 1, 0, 1, 1, 1, 2])
    features = torch.arange(10.0)[:, None]
    rows = spread_rows(features, labels, 3, 4)[..., 0]
    assert rows.tolist() == [[1, 1, 5, 5], [0, 3, 6, 7], [9, 9, 9, 9]]
    assert spread_rows(features, labels, 3, 1)[..., 0].tolist() == [[1], [0], [9]]
    assert spread_rows(features, labels, 3, 6)[1, :, 0].tolist() == [0, 3, 4, 6, 7, 8]
    assert spread_rows(features, torch.full((10,), -1), 0, 4).shape == (0, 4, 1)
    assert spread_rows(features[:0], labels[:0], 0, 4).shape == (0, 4, 1)


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("batch", [0, 1, 7, 20])
def test_the_newest_rows_stay_as_in_a_queue(count: int, batch: int) -> None:
    """Per cluster the set is that of a queue of its last ``count`` features, over several batches."""
    generator = torch.Generator().manual_seed(10 * batch + count)
    rows = torch.rand(4, count, 1, generator=generator)
    queues = [one.flatten().tolist() for one in rows]
    oldest = torch.zeros(4, dtype=torch.int64)
    for _ in range(3):
        features = torch.rand(batch, 1, generator=generator)
        targets = torch.randint(-1, 3, (batch,), generator=generator)  # cluster 3 is never in a batch
        before = rows.clone()
        new, places = newest_rows(rows, oldest, features, targets)
        assert torch.equal(rows, before)
        rows, oldest = new, places
        for value, target in zip(features.flatten().tolist(), targets.tolist(), strict=True):
            if target >= 0:
                queues[target] = [*queues[target][1:], value]
        for cluster in range(4):
            in_order = rows[cluster].flatten().roll(-int(oldest[cluster]))
            assert in_order.tolist() == queues[cluster]
