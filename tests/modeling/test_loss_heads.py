"""Every registered loss head: builds from the config, trains the encoder, survives the degenerate cases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from head_world import build, configured, run, world

from dnreid_plugins.functional.types import Domain, DomainClusters, EpochClusters
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY, LossHead, build_loss_heads
from dnreid_plugins.modeling.loss_heads.base import parse_weight

HEADS = sorted(LOSS_HEAD_REGISTRY._obj_map)
# Heads that need more than features and memory have tests of their own.
PLAIN = ["CMA", "ClusterNCE", "DGM", "MAA", "MMD", "MarginMMD", "PGM"]


def test_the_plain_heads_are_registered() -> None:
    assert set(PLAIN) <= set(HEADS)


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "CMA"])
def test_gradient_reaches_the_encoder(name: str) -> None:
    loss, batch = run(build(name), [0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2])
    assert loss.ndim == 0 and torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, batch.features)
    assert bool(gradient.norm() > 0), f"{name} trains nothing"


DEGENERATE = {
    "one cluster each": ([0, 0], [0, 0]),
    "no night cluster": ([0, 0, 1, 1], [-1, -1]),
    "no day cluster": ([-1, -1], [0, 0, 1, 1]),
    "outliers in the batch": ([0, 0, -1], [0, -1, 0]),
    "more night clusters": ([0, 0], [0, 0, 1, 1, 2, 2]),
    "no night image in the batch": ([0, 0, 1, 1], []),
}


@pytest.mark.parametrize("name", [name for name in PLAIN if name != "CMA"])
@pytest.mark.parametrize("case", sorted(DEGENERATE))
def test_degenerate_cases_stay_finite_and_connected(name: str, case: str) -> None:
    loss, batch = run(build(name), *DEGENERATE[case])
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, batch.features)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", ["ClusterNCE", "DGM", "MAA", "PGM"])
def test_renumbering_the_clusters_of_one_domain_changes_no_loss(name: str) -> None:
    day = [0, 0, 1, 1, 2, 2, 3, 3]
    renumbered = [(c + 1) % 4 for c in day]
    plain, _ = run(build(name), day, day)
    clusters, memory, batch = world(day, day)
    order = torch.tensor([3, 0, 1, 2])  # new cluster -> old cluster
    night = clusters.night
    moved = DomainClusters(torch.tensor(renumbered), night.features, night.centroids[order], night.indices)
    clusters = EpochClusters(clusters.day, moved, 1, 10)
    memory.rebuild(clusters, "cpu")
    head = build(name)
    head.begin_epoch(clusters, memory)
    head.matching = head.assignment
    targets = torch.cat([clusters.day.labels, moved.labels])
    other = head(BatchFeatures(batch.features, batch.pooled, targets, batch.domains, batch.indices), memory)
    torch.testing.assert_close(other, plain)


def test_cma_mixes_both_sides_once_and_adds_no_loss() -> None:
    head = build("CMA")
    clusters, memory, _ = world([0, 0, 1, 1], [0, 0, 1, 1])
    before = [memory.rows(d).clone() for d in Domain]
    head.begin_epoch(clusters, memory)
    assert not head.has_loss and head.assignment is not None
    assert head.assignment.day_to_night.tolist() == [0, 1]
    for d in Domain:
        expected = F.normalize(0.1 * before[d] + 0.9 * before[1 - d], dim=1)
        torch.testing.assert_close(memory.rows(d), expected)


def test_one_sided_cma_mixes_the_day_rows_only_and_leaves_their_length() -> None:
    head = configured("CMA", ONE_SIDED=True, MOMENTUM=0.4)
    clusters, memory, _ = world([0, 0, 1, 1], [0, 0, 1, 1])
    day, night = (memory.rows(d).clone() for d in Domain)
    head.begin_epoch(clusters, memory)
    torch.testing.assert_close(memory.rows(Domain.DAY), 0.4 * day + 0.6 * night)
    assert torch.equal(memory.rows(Domain.NIGHT), night)


def test_pgm_alternates_by_epoch() -> None:
    for epoch, reached in ((1, Domain.NIGHT), (2, Domain.DAY)):
        loss, batch = run(build("PGM"), [0, 0, 1, 1], [0, 0, 1, 1], epoch)
        (gradient,) = torch.autograd.grad(loss, batch.features)
        for domain in Domain:
            norm = gradient[batch.domains == domain].norm()
            assert bool(norm > 0) == (domain == reached)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [(((1, 0.5), (51, 0.3)), [0.5, 0.5, 0.3, 0.3]), (((51, 0.3),), [0.0, 0.0, 0.3, 0.3])],
)
def test_weights_are_piecewise_constant(weight: tuple, expected: list[float]) -> None:
    head = LossHead(weight=weight)
    assert [head.weight_at(epoch) for epoch in (1, 50, 51, 100)] == expected


@pytest.mark.parametrize(
    "weight", [(), ((0, 1.0),), ((2, 1.0), (1, 0.5)), ((1, -1.0),), ((1.5, 1.0),), (1, 2), "x"]
)
def test_bad_weights_are_refused(weight: object) -> None:
    with pytest.raises(ValueError, match="A loss weight is"):
        parse_weight(weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [(), ("ClusterNCE", "ClusterNCE"), ("Clusternce",), ("CrossEntropyLoss",)])
def test_bad_names_are_refused(names: tuple[str, ...]) -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = names
    with pytest.raises(ValueError, match=r"MODEL\.LOSSES\.NAME"):
        build_loss_heads(cfg)


@pytest.mark.parametrize(("head", "key"), [("DGM", "PROGRESS"), ("MAA", "FEATURE"), ("MMD", "FEATURE")])
def test_unknown_options_are_refused(head: str, key: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = (head,)
    cfg.MODEL.LOSSES[head][key] = "else"
    with pytest.raises(ValueError, match=f"MODEL.LOSSES.{head}.{key}"):
        build_loss_heads(cfg)


@pytest.mark.parametrize("name", ["MAA", "MMD", "MarginMMD"])
def test_number_of_kernels_reaches_the_loss_and_is_checked(name: str) -> None:
    values = []
    for count in (1, 5):
        loss, _ = run(configured(name, NUM_KERNELS=count), [0, 0, 1, 1], [0, 0, 1, 1])
        values.append(float(loss.detach()))
    assert values[0] != values[1]
    with pytest.raises(ValueError, match="NUM_KERNELS is 0"):
        configured(name, NUM_KERNELS=0)
