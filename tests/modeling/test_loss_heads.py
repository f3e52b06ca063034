"""Every registered loss head: builds from the config, trains the encoder, survives the degenerate cases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg

from dnreid_plugins.functional.types import Domain, DomainClusters, EpochClusters
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY, LossHead, build_loss_heads
from dnreid_plugins.modeling.loss_heads.base import parse_weight
from dnreid_plugins.modeling.memory import PrototypeMemory

D = 16
HEADS = sorted(LOSS_HEAD_REGISTRY._obj_map)
# Heads that need more than features and memory have tests of their own.
PLAIN = ["CMA", "ClusterNCE", "DGM", "MAA", "MMD", "MarginMMD", "PGM"]


def build(name: str) -> LossHead:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = (name,)
    head = build_loss_heads(cfg)[name]
    head.schedule = [(1, 1.0)]
    return head


def part(labels: list[int], first: int, noise: float = 0.2, seed: int = 0) -> DomainClusters:
    """Clusters around shared directions, so that equal numbers are similar across domains."""
    generator = torch.Generator().manual_seed(seed + first)
    directions = torch.randn(8, D, generator=torch.Generator().manual_seed(7))
    target = torch.tensor(labels, dtype=torch.int64)
    features = directions[target.clamp(min=0)] + noise * torch.randn(len(labels), D, generator=generator)
    features = F.normalize(features, dim=1)
    count = int(target.max()) + 1 if len(labels) else 0
    centroids = (
        torch.stack([features[target == c].mean(0) for c in range(max(count, 0))]) if count else features[:0]
    )
    return DomainClusters(target, features, F.normalize(centroids, dim=1), first + torch.arange(len(labels)))


def world(
    day: list[int], night: list[int], epoch: int = 1
) -> tuple[EpochClusters, PrototypeMemory, BatchFeatures]:
    clusters = EpochClusters(part(day, 0), part(night, len(day)), epoch, 10)
    memory = PrototypeMemory()
    memory.rebuild(clusters, "cpu")
    features = torch.cat([clusters.day.features, clusters.night.features]) * 3 + 0.3
    features = features.clone().requires_grad_()
    batch = BatchFeatures(
        features,
        features * 2,
        torch.cat([clusters.day.labels, clusters.night.labels]),
        torch.tensor([0] * len(day) + [1] * len(night)),
        torch.arange(len(day) + len(night)),
    )
    return clusters, memory, batch


def run(
    head: LossHead, day: list[int], night: list[int], epoch: int = 1
) -> tuple[torch.Tensor, BatchFeatures]:
    clusters, memory, batch = world(day, night, epoch)
    head.begin_epoch(clusters, memory)
    head.matching = head.assignment
    return head(batch, memory), batch


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


def test_pgm_alternates_by_epoch() -> None:
    for epoch, reached in ((1, Domain.NIGHT), (2, Domain.DAY)):
        loss, batch = run(build("PGM"), [0, 0, 1, 1], [0, 0, 1, 1], epoch)
        (gradient,) = torch.autograd.grad(loss, batch.features)
        for domain in Domain:
            norm = gradient[batch.domains == domain].norm()
            assert bool(norm > 0) == (domain == reached)


def test_dgm_keeps_the_last_matching_across_a_renumbering() -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ("DGM",)
    cfg.MODEL.LOSSES.DGM.ON_EMPTY = "keep_last"
    head = build_loss_heads(cfg)["DGM"]
    clusters, memory, _ = world([0, 0, 1, 1], [0, 0, 1, 1])
    head.begin_epoch(clusters, memory)
    assert head.assignment is not None and head.assignment.day_to_night.tolist() == [0, 1]
    state = head.carry_over()
    # At the last epoch the ramp is beyond every score; day clusters are renumbered meanwhile.
    day = clusters.day
    swapped = DomainClusters(1 - day.labels, day.features, day.centroids.flip(0), day.indices)
    late = EpochClusters(swapped, clusters.night, 100, 100)
    head.begin_epoch(late, memory)
    assert head.assignment.day_to_night.tolist() == [1, 0]
    resumed = build_loss_heads(cfg)["DGM"]
    resumed.load_carry_over(state)
    resumed.begin_epoch(late, memory)
    assert resumed.assignment is not None and resumed.assignment.day_to_night.tolist() == [1, 0]


def test_dgm_progress_of_the_stage_starts_at_its_first_epoch() -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ("DGM",)
    cfg.MODEL.LOSSES.DGM.WEIGHT = ((6, 0.3),)
    clusters, memory, _ = world([0, 0], [0, 0], epoch=6)
    thresholds = {}
    for progress in ("global", "stage"):
        cfg.MODEL.LOSSES.DGM.PROGRESS = progress
        thresholds[progress] = build_loss_heads(cfg)["DGM"].begin_epoch(clusters, memory)["threshold"]
    assert thresholds["stage"] == pytest.approx(0.7)
    assert thresholds["global"] == pytest.approx(0.7 + 0.45 * 5 / 10)


def test_dgm_may_move_the_other_domains_rows() -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ("DGM",)
    cfg.MODEL.LOSSES.DGM.UPDATE_OTHER = True
    head = build_loss_heads(cfg)["DGM"]
    clusters, memory, batch = world([0, 0, 1, 1], [0, 0, 1, 1])
    head.begin_epoch(clusters, memory)
    before = memory.rows(Domain.NIGHT).clone()
    head.after_step(batch.detach(), memory)
    assert not torch.allclose(memory.rows(Domain.NIGHT), before)


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
        cfg = get_cfg()
        cfg.MODEL.LOSSES.NAME = (name,)
        cfg.MODEL.LOSSES[name.upper()].NUM_KERNELS = count
        loss, _ = run(build_loss_heads(cfg)[name], [0, 0, 1, 1], [0, 0, 1, 1])
        values.append(float(loss.detach()))
    assert values[0] != values[1]
    cfg.MODEL.LOSSES[name.upper()].NUM_KERNELS = 0
    with pytest.raises(ValueError, match="NUM_KERNELS is 0"):
        build_loss_heads(cfg)
