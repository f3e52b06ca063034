"""PrototypeMemory: rows live by domain, only `rebuild`, `set_rows` and `update` change them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dnreid_plugins.functional.types import Domain, DomainClusters, EpochClusters
from dnreid_plugins.modeling.memory import PrototypeMemory


def clusters(outliers: int = 1) -> EpochClusters:
    parts = []
    for first in (0, 10):
        features = F.normalize(torch.randn(4 + outliers, 3), dim=1)
        labels = torch.tensor([0, 0, 1, 1] + [-1] * outliers)
        centroids = F.normalize(torch.stack([features[:2].mean(0), features[2:4].mean(0)]), dim=1)
        parts.append(DomainClusters(labels, features, centroids, first + torch.arange(4 + outliers)))
    return EpochClusters(parts[0], parts[1], 1, 2)


def test_rows_start_at_the_centroids_and_do_not_alias_them() -> None:
    epoch = clusters()
    memory = PrototypeMemory()
    memory.rebuild(epoch, "cpu")
    memory.update(torch.eye(3)[:1], torch.tensor([0]), torch.tensor([0]))
    torch.testing.assert_close(epoch.day.centroids.norm(dim=1), torch.ones(2))
    assert not torch.allclose(memory.rows(Domain.DAY)[0], epoch.day.centroids[0])
    torch.testing.assert_close(memory.rows(Domain.NIGHT), epoch.night.centroids)


def test_update_touches_only_the_named_rows_of_the_named_domain() -> None:
    memory = PrototypeMemory(momentum=0.25, policy="mean")
    memory.rebuild(clusters(), "cpu")
    before = {d: memory.rows(d).clone() for d in Domain}
    feature = F.normalize(torch.randn(1, 3), dim=1)
    memory.update(feature, torch.tensor([1]), torch.tensor([int(Domain.NIGHT)]))
    expected = F.normalize(0.25 * before[Domain.NIGHT][1] + 0.75 * feature[0], dim=0)
    torch.testing.assert_close(memory.rows(Domain.NIGHT)[1], expected)
    assert torch.equal(memory.rows(Domain.NIGHT)[0], before[Domain.NIGHT][0])
    assert torch.equal(memory.rows(Domain.DAY), before[Domain.DAY])


def test_outliers_and_empty_domains_change_nothing() -> None:
    memory = PrototypeMemory()
    epoch = clusters()
    empty = DomainClusters(torch.tensor([-1]), torch.ones(1, 3), torch.zeros(0, 3), torch.tensor([10]))
    memory.rebuild(EpochClusters(epoch.day, empty, 1, 2), "cpu")
    before = memory.rows(Domain.DAY).clone()
    memory.update(torch.eye(3), torch.tensor([-1, -1, 0]), torch.tensor([0, 1, 1]))
    assert torch.equal(memory.rows(Domain.DAY), before)
    assert memory.rows(Domain.NIGHT).shape == (0, 3)


def test_outlier_rows_stand_behind_the_clusters_and_never_move() -> None:
    memory = PrototypeMemory(outlier_rows=True)
    epoch = clusters(outliers=2)
    memory.rebuild(epoch, "cpu")
    assert memory.num_clusters(Domain.DAY) == 2 and memory.rows(Domain.DAY).shape == (4, 3)
    torch.testing.assert_close(memory.rows(Domain.DAY)[2:], epoch.day.features[4:])
    memory.update(torch.eye(3), torch.tensor([0, 1, 1]), torch.tensor([0, 0, 0]))
    torch.testing.assert_close(memory.rows(Domain.DAY)[2:], epoch.day.features[4:])


def test_state_survives_a_round_trip_and_later_updates_agree() -> None:
    memory, other = PrototypeMemory(), PrototypeMemory()
    memory.rebuild(clusters(), "cpu")
    memory.update(torch.eye(3), torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]))
    other.load_state_dict(memory.state_dict(), "cpu")
    for one in (memory, other):
        one.update(torch.eye(3), torch.tensor([1, 1, 0]), torch.tensor([0, 1, 1]))
    for domain in Domain:
        assert torch.equal(memory.rows(domain), other.rows(domain))
        assert memory.num_clusters(domain) == other.num_clusters(domain)


def test_rows_carry_no_gradient_and_refuse_a_wrong_shape() -> None:
    memory = PrototypeMemory()
    memory.rebuild(clusters(), "cpu")
    memory.set_rows(Domain.DAY, torch.eye(3)[:2].requires_grad_())
    assert not memory.rows(Domain.DAY).requires_grad
    with pytest.raises(ValueError, match="2 clusters"):
        memory.set_rows(Domain.DAY, torch.eye(3))
    with pytest.raises(ValueError, match=r"MODEL\.MEMORY\.MOMENTUM is 1\.5"):
        PrototypeMemory(momentum=1.5)
