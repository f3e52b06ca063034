"""ClusterMemory: rows live by domain; only `begin_epoch`, `set_rows` and `update` change them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from head_world import parts_of, turned_world, unclustered

from dnreid_plugins.functional.types import Clusters, Domain, Epoch
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.parts import Parts
from dnreid_plugins.runtime.sections import construct


def clusters(outliers: int = 1) -> Epoch:
    parts = []
    for first in (0, 10):
        features = F.normalize(torch.randn(4 + outliers, 3), dim=1)
        labels = torch.tensor([0, 0, 1, 1] + [-1] * outliers)
        centroids = F.normalize(torch.stack([features[:2].mean(0), features[2:4].mean(0)]), dim=1)
        parts.append(Clusters(labels, features, centroids, first + torch.arange(4 + outliers)))
    return Epoch.of(parts[0], parts[1], 1, 2)


def begun(epoch: Epoch, memory: ClusterMemory | None = None) -> ClusterMemory:
    memory = memory or ClusterMemory()
    parts_of(memory=memory).begin_epoch(epoch)
    return memory


def test_rows_start_at_the_centroids_and_do_not_alias_them() -> None:
    epoch = clusters()
    memory = begun(epoch)
    memory.update(Domain.DAY, torch.eye(3)[:1], torch.tensor([0]))
    torch.testing.assert_close(epoch.day.centroids.norm(dim=1), torch.ones(2))
    assert not torch.allclose(memory.rows(Domain.DAY)[0], epoch.day.centroids[0])
    torch.testing.assert_close(memory.rows(Domain.NIGHT), epoch.night.centroids)


def test_update_touches_only_the_named_rows_of_the_named_domain() -> None:
    memory = begun(clusters(), ClusterMemory(momentum=0.25, update="mean"))
    before = {d: memory.rows(d).clone() for d in Domain}
    feature = F.normalize(torch.randn(1, 3), dim=1)
    memory.update(Domain.NIGHT, feature, torch.tensor([1]))
    expected = F.normalize(0.25 * before[Domain.NIGHT][1] + 0.75 * feature[0], dim=0)
    torch.testing.assert_close(memory.rows(Domain.NIGHT)[1], expected)
    assert torch.equal(memory.rows(Domain.NIGHT)[0], before[Domain.NIGHT][0])
    assert torch.equal(memory.rows(Domain.DAY), before[Domain.DAY])


def test_a_step_moves_the_rows_of_each_image_in_its_own_domain() -> None:
    here = turned_world()
    parts, twin = here.parts(), here.parts()
    parts.after_step(here.batch.detach())
    for domain in Domain:
        own = here.batch.detach().of(domain)
        twin.memory.update(domain, own.unit, own.targets)
        assert torch.equal(parts.memory.rows(domain), twin.memory.rows(domain))
        assert not torch.equal(parts.memory.rows(domain), here.epoch[domain].centroids)


def test_outliers_and_empty_domains_change_nothing() -> None:
    epoch = clusters()
    memory = begun(Epoch.of(epoch.day, unclustered(epoch.night), 1, 2))
    before = memory.rows(Domain.DAY).clone()
    memory.update(Domain.DAY, torch.eye(3)[:1], torch.tensor([-1]))
    memory.update(Domain.NIGHT, torch.eye(3)[1:], torch.tensor([-1, 0]))
    assert torch.equal(memory.rows(Domain.DAY), before)
    assert memory.rows(Domain.NIGHT).shape == (0, 3)


def test_outlier_rows_stand_behind_the_clusters_and_never_move() -> None:
    epoch = clusters(outliers=2)
    memory = begun(epoch, ClusterMemory(outlier_rows=True))
    assert memory.num_clusters(Domain.DAY) == 2 and memory.rows(Domain.DAY).shape == (4, 3)
    torch.testing.assert_close(memory.rows(Domain.DAY)[2:], epoch.day.features[4:])
    memory.update(Domain.DAY, torch.eye(3), torch.tensor([0, 1, 1]))
    torch.testing.assert_close(memory.rows(Domain.DAY)[2:], epoch.day.features[4:])


def test_state_survives_a_round_trip_and_later_updates_agree() -> None:
    """As on a resume: the epoch begins once more, then the state is put back on top."""
    epoch = clusters()
    memory, other = begun(epoch), begun(epoch)
    memory.update(Domain.DAY, torch.eye(3)[:2], torch.tensor([0, 1]))
    memory.update(Domain.NIGHT, torch.eye(3)[2:], torch.tensor([0]))
    other.load_state_dict(memory.state_dict())
    for one in (memory, other):
        one.update(Domain.DAY, torch.eye(3)[:1], torch.tensor([1]))
        one.update(Domain.NIGHT, torch.eye(3)[1:], torch.tensor([1, 0]))
    for domain in Domain:
        assert torch.equal(memory.rows(domain), other.rows(domain))
        assert memory.num_clusters(domain) == other.num_clusters(domain)


def test_state_takes_over_the_sizes_of_a_checkpoint() -> None:
    memory, other = begun(clusters()), ClusterMemory()
    other.load_state_dict(memory.state_dict())
    assert all(torch.equal(memory.rows(domain), other.rows(domain)) for domain in Domain)


def test_rows_carry_no_gradient_and_refuse_a_wrong_shape() -> None:
    memory = begun(clusters())
    memory.set_rows(Domain.DAY, torch.eye(3)[:2].requires_grad_())
    assert torch.equal(memory.rows(Domain.DAY), torch.eye(3)[:2])
    assert not memory.rows(Domain.DAY).requires_grad
    with pytest.raises(ValueError, match="2 clusters"):
        memory.set_rows(Domain.DAY, torch.eye(3))
    with pytest.raises(ValueError, match=r"MODEL\.MEMORY\.MOMENTUM is 1\.5"):
        ClusterMemory(momentum=1.5)


# ---------------------------------------------------------------------- banks and names


def test_an_extra_bank_starts_as_the_first_one_and_follows_its_own_rule() -> None:
    epoch = clusters()
    memory = begun(epoch, ClusterMemory(update="mean", extra_banks=(("hard", "hardest"),)))
    twins = {policy: begun(epoch, ClusterMemory(update=policy)) for policy in ("mean", "hardest")}
    assert torch.equal(memory.rows(Domain.DAY, "hard"), memory.rows(Domain.DAY))
    features, targets = F.normalize(torch.randn(4, 3), dim=1), torch.tensor([0, 0, 1, 1])
    for one in (memory, *twins.values()):
        one.update(Domain.DAY, features, targets)
    assert torch.equal(memory.rows(Domain.DAY), twins["mean"].rows(Domain.DAY))
    assert torch.equal(memory.rows(Domain.DAY, "hard"), twins["hardest"].rows(Domain.DAY))
    assert not torch.equal(memory.rows(Domain.DAY, "hard"), memory.rows(Domain.DAY))
    memory.set_rows(Domain.DAY, torch.eye(3)[:2], "hard")
    assert torch.equal(memory.cluster_rows("day", "hard"), torch.eye(3)[:2])


def test_a_bank_may_follow_the_image_that_is_hardest_for_the_first_one() -> None:
    """Two images of cluster 0: the second is hardest for "own", the first for the row of "hard", which was turned."""
    memory = begun(clusters(), ClusterMemory(update="mean", extra_banks=(("hard", "hardest_of_own"),)))
    x, y = torch.eye(3)[:2]
    memory.set_rows(Domain.DAY, torch.stack([x, y]))
    memory.set_rows(Domain.DAY, torch.stack([y, x]), "hard")
    features = F.normalize(torch.tensor([[2.0, 1, 0], [1, 2, 0]]), dim=1)
    memory.update(Domain.DAY, features, torch.tensor([0, 0]))
    expected = F.normalize(0.1 * y + 0.9 * features[1], dim=0)
    torch.testing.assert_close(memory.rows(Domain.DAY, "hard")[0], expected)
    torch.testing.assert_close(
        memory.rows(Domain.DAY)[0], F.normalize(0.1 * x + 0.9 * features.mean(0), dim=0)
    )


@pytest.mark.parametrize(
    "banks",
    [
        (("own", "mean"),),
        (("hard", "softest"),),
        (("hard", "mean"), ("hard", "hardest")),
        (("a-b", "mean"),),
        (("hard",),),
        ("hard",),
        (("hard", "mean", "mean"),),
        (3,),
        ((1, "mean"),),
        (("hard", ["mean"]),),
    ],
)
def test_banks_that_cannot_be_are_refused(banks: object) -> None:
    cfg = get_cfg()
    cfg.MODEL.MEMORY.EXTRA_BANKS = banks
    with pytest.raises(ValueError, match=r"MODEL\.MEMORY\.EXTRA_BANKS is"):
        construct(ClusterMemory, cfg)


def joint_epoch() -> tuple[Epoch, Parts]:
    """The turned world with joint clusters of its images in both domains, those of day cluster 2 left out."""
    here = turned_world()
    features = torch.cat([here.epoch[domain].features for domain in Domain])
    day, night = here.epoch.day.labels, here.epoch.night.labels
    labels = torch.cat([torch.where(day < 2, day, -1), torch.tensor([-1, 2, 0, 1])[night.clamp(min=0)]])
    joint = make_clusters(labels, features, torch.arange(len(features)))
    return replace(here.epoch, clusters={**here.epoch.clusters, "joint": joint}), parts_of()


def test_clusters_of_another_name_have_a_bank_of_that_name() -> None:
    epoch, parts = joint_epoch()
    parts.begin_epoch(epoch)
    rows = parts.memory.rows("joint").clone()
    assert torch.equal(rows, epoch.clusters["joint"].centroids) and parts.memory.num_clusters("joint") == 3
    batch = turned_world().batch.detach()
    order = torch.randperm(len(batch.indices))
    parts.after_step(batch.where(order))
    twin = begun(epoch)
    twin.update("joint", batch.unit[order], epoch.clusters["joint"].labels[order])
    assert torch.equal(parts.memory.rows("joint"), twin.rows("joint"))
    assert not torch.equal(parts.memory.rows("joint"), rows)
    other = ClusterMemory()
    other.load_state_dict(parts.memory.state_dict())
    assert torch.equal(other.rows("joint"), parts.memory.rows("joint"))


def test_other_views_move_no_row_if_so_asked() -> None:
    here = turned_world()
    plain = here.batch.detach()
    both = plain.where(torch.arange(len(plain.targets)).repeat(2))
    views = torch.arange(2).repeat_interleave(len(plain.targets))
    both = replace(both, features=both.features + views[:, None], views=views)
    for alone in (True, False):
        parts = here.parts(memory=ClusterMemory(plain_views_only=alone))
        twin = here.parts()
        parts.after_step(both)
        twin.after_step(plain)
        same = torch.equal(parts.memory.rows(Domain.DAY), twin.memory.rows(Domain.DAY))
        assert same == alone
