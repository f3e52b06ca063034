"""What holds for every registered matcher, loss head and memory rule, whoever adds one.

Beside these: soft targets, hybrid rows and transport in `tests/functional`, views in `test_cluster_memory`, what a
resume brings back in `test_bank_runs`, `test_teacher` and `test_confusion_head`, the count of steps in `test_streams`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest
import torch
from fastreid.config import get_cfg
from head_world import SECTIONS, build, part, renumbered, unclustered, world

from dnreid_plugins.functional.losses.contrast import cluster_nce
from dnreid_plugins.functional.memory_update import UpdatePolicy
from dnreid_plugins.functional.types import Assignment, Clusters, Domain, Epoch
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY, LossHead, build_loss_heads
from dnreid_plugins.modeling.matchers import MATCHER_REGISTRY, Matcher
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.parts import Parts
from dnreid_plugins.runtime.sections import construct

MATCHERS = MATCHER_REGISTRY.names()
#: Fewer neighbours than clusters.
OPTIONS = {"MutualNeighbours": {"top_k": 2}}
RULES = get_args(UpdatePolicy)
#: They need no label: distributions of a batch, and domains.
NEED_NO_TARGET = {"MAA", "MMD", "MarginMMD", "DomainConfusion", "RelaxedContrast"}
#: They stand on prompts, mutual neighbours or a further output of their encoder, and have tests of their own.
ELSEWHERE = {"CPML", "GlareMask", "ImageText", "PrototypeClassifier"}
LOSSES = sorted(
    name
    for name in set(LOSS_HEAD_REGISTRY.names()) - NEED_NO_TARGET - ELSEWHERE
    if getattr(LOSS_HEAD_REGISTRY.get(name), "has_loss", True)
)


def epoch_of(day: Clusters, night: Clusters) -> Epoch:
    """With joint clusters: images of the same direction."""
    both = (torch.cat([day.features, night.features]), torch.cat([day.indices, night.indices]))
    alike = [labels_of(day), labels_of(night)]
    return Epoch(1, 10, {"day": day, "night": night, "joint": make_clusters(torch.cat(alike), *both)})


def labels_of(clusters: Clusters) -> torch.Tensor:
    """Labels by the nearest of the directions that `part` draws from; outliers stay outliers."""
    directions = torch.randn(8, clusters.features.shape[1], generator=torch.Generator().manual_seed(7))
    nearest = (clusters.features @ torch.nn.functional.normalize(directions, dim=1).T).argmax(dim=1)
    return torch.where(clusters.labels >= 0, nearest, -1)


def matched(name: str, epoch: Epoch) -> Assignment:
    matcher: Matcher = MATCHER_REGISTRY.get(name)(**OPTIONS.get(name, {}))
    assignment, _ = matcher.match(epoch)
    return assignment


# ------------------------------------------------------------------ matchers


def turned(counts: tuple[int, int]) -> tuple[Clusters, Clusters]:
    """Clusters of three images around shared directions; the night clusters are numbered in another order."""
    sides = [[c for c in range(count) for _ in range(3)] for count in counts]
    day, night = part(sides[0], 0, noise=0.4), part(sides[1], 3 * counts[0], noise=0.4)
    return day, renumbered(night, [(c + 1) % counts[1] for c in range(counts[1])]) if counts[1] else night


@pytest.mark.parametrize("name", MATCHERS)
@pytest.mark.parametrize("counts", [(5, 5), (6, 3), (2, 7), (1, 4)])
def test_swapping_the_domains_swaps_the_maps(name: str, counts: tuple[int, int]) -> None:
    day, night = turned(counts)
    plain, swapped = matched(name, epoch_of(day, night)), matched(name, epoch_of(night, day))
    assert len(plain.pairs()) > 0
    for domain in Domain:
        (partner, score), (other, other_score) = plain.partner(domain), swapped.partner(domain.other)
        assert torch.equal(partner, other), name
        torch.testing.assert_close(score, other_score)


@pytest.mark.parametrize("name", MATCHERS)
@pytest.mark.parametrize("empty", [(True, False), (False, True), (True, True)])
def test_a_side_without_clusters_has_no_pair(name: str, empty: tuple[bool, bool]) -> None:
    sides = [unclustered(one) if none else one for one, none in zip(turned((2, 3)), empty, strict=True)]
    found = matched(name, epoch_of(*sides))
    expected = Assignment.empty(*(one.num_clusters for one in sides))
    for domain in Domain:
        for one, other in zip(found.partner(domain), expected.partner(domain), strict=True):
            assert torch.equal(one, other) and one.dtype == other.dtype


# ------------------------------------------------------------------ loss heads


def with_every_bank(name: str) -> tuple[LossHead, ClusterMemory]:
    """The head of a run in which there is all that a head may ask for."""
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME, cfg.MODEL.TEACHER.ENABLED = (name,), True
    cfg.MODEL.MEMORY.EXTRA_BANKS = (("hard", "hardest_of_own"),)
    cfg.MODEL.LOSSES[SECTIONS.get(name, name.upper())].WEIGHT = ((1, 1.0),)
    return build_loss_heads(cfg)[name], construct(ClusterMemory, cfg)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_without_any_target_gives_zero_with_a_graph(name: str) -> None:
    here = world([-1, -1, -1], [-1, -1])
    epoch = epoch_of(here.epoch.day, here.epoch.night)
    epoch = replace(epoch, clusters={**epoch.clusters, "shared": epoch.clusters["joint"]})
    head, memory = with_every_bank(name)
    parts = replace(here, epoch=epoch).parts(head, memory=memory)
    loss = head(here.batch, parts)
    assert loss.item() == 0.0 and loss.requires_grad
    (gradient,) = torch.autograd.grad(loss, here.batch.features)
    assert not bool(gradient.any())


# ------------------------------------------------------------------ memory


def stepped(epoch: Epoch, rule: str, *, swap: bool = False) -> ClusterMemory:
    """A memory with this rule after a step with noisy features of all images."""
    memory = ClusterMemory(update=rule, extra_banks=(("hard", "hardest_of_own"),))  # type: ignore[arg-type]
    parts = Parts(memory=memory, losses={})
    parts.begin_epoch(epoch)
    here = world([0, 0, 1, 1, 2, 2, -1], [0, 0, 0, 1, 1])
    drawn = torch.randn(here.batch.features.shape, generator=torch.Generator().manual_seed(1))
    domains = 1 - here.batch.domains if swap else here.batch.domains
    parts.after_step(replace(here.batch, features=drawn, domains=domains).detach())
    return memory


@pytest.mark.parametrize("rule", RULES)
def test_swapping_the_domains_swaps_the_rows(rule: str) -> None:
    here = world([0, 0, 1, 1, 2, 2, -1], [0, 0, 0, 1, 1]).epoch
    plain = stepped(here, rule)
    swapped = stepped(Epoch.of(here.night, here.day, 1, 10), rule, swap=True)
    for bank in ("own", "hard"):
        for domain in Domain:
            assert torch.equal(plain.rows(domain, bank), swapped.rows(domain.other, bank))
            assert not torch.equal(plain.rows(domain, bank), here[domain].centroids)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("domain", Domain)
def test_a_shared_bank_of_one_domains_clusters_is_that_domains_bank(rule: str, domain: Domain) -> None:
    """Rows after a step bit for bit, and so the loss."""
    here = world([0, 0, 1, 1, 2, 2, -1], [0, 0, 0, 1, 1])
    epoch = replace(here.epoch, clusters={**here.epoch.clusters, "shared": here.epoch[domain]})
    memory = stepped(epoch, rule)
    for bank in ("own", "hard"):
        assert torch.equal(memory.rows("shared", bank), memory.rows(domain, bank))
    own = here.batch.of(domain)
    parts = replace(here, epoch=epoch).parts(build("SharedContrast"))
    loss = parts.losses["SharedContrast"](here.batch, parts)
    torch.testing.assert_close(loss, cluster_nce(own.unit, own.targets, parts.memory.rows(domain)))
