"""CIA's heads and their baselines: each equals its functions called by hand, and no key of a section is idle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from head_world import World, build, configured, part, parts_of, plant, turned_world, world_of
from torch import Tensor

from dnreid_plugins.functional.losses.adaptive_alignment import maa_loss
from dnreid_plugins.functional.losses.contrast import cluster_nce, mutual_mapping_loss
from dnreid_plugins.functional.losses.mmd import margin_mmd, mmd2
from dnreid_plugins.functional.matching.graphs import dictionary_graph_matching, progressive_graph_matching
from dnreid_plugins.functional.types import Assignment, Clusters, Domain
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.memories import ClusterMemory

DAY, NIGHT = Domain.DAY, Domain.NIGHT


def cross_loss(
    batch: BatchFeatures, memory: ClusterMemory, matching: Assignment, domain: Domain, t: float
) -> Any:
    own = batch.of(domain)
    partner, score = matching.partner(domain)
    return mutual_mapping_loss(
        own.unit, own.targets, partner, score, memory.rows(domain.other), temperature=t
    )


# ---------------------------------------------------------------------- heads against their functions


def test_cluster_nce_is_the_sum_over_both_domains() -> None:
    here = turned_world()
    batch, memory = here.batch, here.parts().memory
    day, night = (
        cluster_nce(batch.of(d).unit, batch.of(d).targets, memory.rows(d), temperature=0.2) for d in Domain
    )
    assert day.item() != pytest.approx(night.item(), rel=0.05)
    torch.testing.assert_close(here.loss(configured("ClusterNCE", TEMPERATURE=0.2)), day + night)


DGM_OPTIONS: dict[str, Any] = {
    "SCORING": "discrete",
    "ALPHA": 0.4,
    "SIMILARITY_THRESHOLD": 0.3,
    "THRESHOLD_START": 0.6,
    "THRESHOLD_FINAL": 1.3,
    "PENALTY": 0.4,
    "ON_EMPTY": "cap",
    "SECOND_ROUND": True,
}


def test_dgm_is_both_directions_of_the_weighted_contrast() -> None:
    here = turned_world(4)
    head = configured("DGM", WEIGHT=((3, 0.3),), PROGRESS="stage", TEMPERATURE=0.2, **DGM_OPTIONS)
    parts, batch = here.parts(head), here.batch
    options = {key.lower(): value for key, value in DGM_OPTIONS.items()}
    expected = dictionary_graph_matching(
        here.epoch.day.centroids, here.epoch.night.centroids, progress=1 / 8, **options
    ).assignment
    assert expected.day_to_night.tolist()[:3] == [1, 2, 0]
    matching = parts.matching("DGM")
    assert matching is not None
    for domain in Domain:
        for got, want in zip(matching.partner(domain), expected.partner(domain), strict=True):
            assert torch.equal(got, want)
    day, night = (cross_loss(batch, parts.memory, expected, d, 0.2) for d in Domain)
    plain = sum(cross_loss(batch, parts.memory, expected.with_unit_scores(), d, 0.2) for d in Domain)
    assert min(day.item(), night.item()) > 0 and (day + night).item() != pytest.approx(plain.item(), rel=1e-3)
    torch.testing.assert_close(head(batch, parts), day + night)


def test_pgm_is_the_unweighted_contrast_of_one_direction_or_both() -> None:
    here = turned_world()
    epoch, memory = here.epoch, here.parts().memory
    matched = progressive_graph_matching(epoch.day.centroids, epoch.night.centroids, max_rounds=1)
    day, night = (cross_loss(here.batch, memory, matched.with_unit_scores(), d, 0.2) for d in Domain)
    for alternate, expected in ((False, day + night), (True, night)):
        head = build("PGM", TEMPERATURE=0.2, MAX_ROUNDS=1, ALTERNATE=alternate)
        torch.testing.assert_close(here.loss(head), expected)


MAA_OPTIONS: dict[str, Any] = {
    "ALPHA_0": 0.8,
    "S_0": 0.05,
    "INTRA_DAY": 0.5,
    "INTRA_NIGHT": 0.2,
    "CLASS_FACTOR": 1.7,
    "NUM_KERNELS": 3,
    "READING": "attract",
}


@pytest.mark.parametrize("feature", ["neck", "pooled"])
def test_maa_is_the_weighted_mmd_under_the_matching_of_the_epoch(feature: str) -> None:
    here = turned_world()
    one_to_one = Assignment.from_pairs(torch.tensor([[0, 1], [1, 2], [2, 0]]), torch.ones(3), 3, 4)
    head = configured("MAA", FEATURE=feature, **MAA_OPTIONS)
    parts, batch = here.parts(head), here.batch
    options = {key.lower(): value for key, value in MAA_OPTIONS.items()}
    day, night = batch.of(DAY), batch.of(NIGHT)
    x, y = (day.unit, night.unit) if feature == "neck" else (day.pooled, night.pooled)
    values = []
    for matching in (None, one_to_one):
        plant(parts, matching)
        partner = None if matching is None else matching.day_to_night
        expected = maa_loss(x, y, day.targets, night.targets, partner, **options)
        got = head(batch, parts)
        assert torch.equal(got, expected.loss)
        assert head.statistics == {"cross_to_intra": expected.cross_to_intra}
        values.append(got.item())
    assert values[0] != pytest.approx(values[1], rel=1e-3)


@pytest.mark.parametrize("feature", ["neck", "pooled"])
def test_mmd_and_margin_mmd_are_their_functions(feature: str) -> None:
    here = turned_world()
    batch = here.batch
    day, night = batch.of(DAY), batch.of(NIGHT)
    x, y = (day.unit, night.unit) if feature == "neck" else (day.pooled, night.pooled)
    plain = mmd2(x, y, num_kernels=3)
    assert torch.equal(here.loss(configured("MMD", FEATURE=feature, NUM_KERNELS=3)), plain)
    margins = {"MARGIN": 1.1, "BATCH_MARGIN": plain.item() + 0.1}
    head = configured("MarginMMD", FEATURE=feature, NUM_KERNELS=3, **margins)
    parts = here.parts(head)
    assert head(batch, parts).item() == 0.0
    matching = Assignment.from_pairs(torch.tensor([[0, 1], [1, 2], [2, 0]]), torch.ones(3), 3, 4)
    plant(parts, matching)
    expected = margin_mmd(x, y, day.targets, night.targets, matching.day_to_night, margin=1.1, num_kernels=3)
    assert expected.item() > 0 and torch.equal(head(batch, parts), expected)


def test_both_maps_of_a_many_to_one_matching_count() -> None:
    here = turned_world()
    batch = here.batch
    batch = replace(batch, features=batch.features.detach() + 3.0)  # every cosine is above 0
    day, night = batch.of(DAY), batch.of(NIGHT)
    # Day 0 and 1 name night 1 and 2; night 0, 1 and 2 name day 0, 0 and 2: neither map holds all four pairs.
    matching = Assignment(torch.tensor([1, 2, -1]), torch.tensor([0, 0, 2, -1]), torch.ones(3), torch.ones(4))
    named = [(0, 0), (0, 1), (1, 2), (2, 2)]
    assert [tuple(pair) for pair in matching.pairs().tolist()] == named

    maa = configured("MAA", CLASS_FACTOR=3.0, S_0=-2.0)
    margin = configured("MarginMMD", MARGIN=0.0)
    parts = here.parts(maa, margin)
    plant(parts, matching)
    got = float(maa(batch, parts))
    # The loss is linear in the weights: each pair adds its own share to the loss without a matching.
    none = float(maa_loss(day.unit, night.unit, day.targets, night.targets, class_factor=3.0, s_0=-2.0).loss)
    shares = []
    for d, n in named:
        single = torch.full((3,), -1)
        single[d] = n
        loss = maa_loss(day.unit, night.unit, day.targets, night.targets, single, class_factor=3.0, s_0=-2.0)
        shares.append(float(loss.loss) - none)
    assert all(abs(share) > 1e-4 for share in shares)
    assert got == pytest.approx(none + sum(shares), abs=1e-5)

    groups = [mmd2(day.unit[day.targets == d], night.unit[night.targets == n]) for d, n in named]
    torch.testing.assert_close(margin(batch, parts), torch.stack(groups).mean())


# ---------------------------------------------------------------------- no key is idle

# Another value for every key of a section; sections of other heads have tests of their own.
OTHER_VALUES: dict[str, dict[str, Any]] = {
    "ClusterNCE": {"TEMPERATURE": 0.2},
    "DGM": {
        **DGM_OPTIONS,
        "TEMPERATURE": 0.2,
        "PROGRESS": "stage",
        "PENALTY": 0.01,
        "THRESHOLD_START": 1.0,
        "THRESHOLD_FINAL": 1.9,
        "MATCH_ALWAYS": True,
        "UPDATE_OTHER": True,
    },
    "MAA": {**MAA_OPTIONS, "S_0": 0.5, "FEATURE": "pooled"},
    "MMD": {"FEATURE": "pooled", "NUM_KERNELS": 3},
    "MarginMMD": {"FEATURE": "pooled", "NUM_KERNELS": 3, "MARGIN": 5.0, "BATCH_MARGIN": 9.0},
    "CMA": {"SIMILARITY_THRESHOLD": 0.97, "MOMENTUM": 0.4, "ONE_SIDED": True},
    "PGM": {"TEMPERATURE": 0.2, "MAX_ROUNDS": 1, "ALTERNATE": False},
}
# What the default is compared from, where it is not the default itself.
START = {
    "DGM": {"WEIGHT": ((3, 0.3),)},
    "PGM": {"WEIGHT": ((1, 0.25),)},
    "CMA": {"WEIGHT": ((1, 1.0),)},
}


def crossing_world(number: int) -> World:
    """Two pairs of clusters of which the nearest one stands in the way of covering all."""

    def at(*angles: tuple[float, int]) -> Tensor:
        rows = torch.zeros(len(angles), 16)
        for row, (cosine, axis) in zip(rows, angles, strict=True):
            row[0], row[axis] = cosine, (1 - cosine**2) ** 0.5
        return rows.repeat_interleave(2, dim=0)

    labels = torch.tensor([0, 0, 1, 1])
    day, night = at((1.0, 1), (0.6, 2)), at((1.0, 1), (0.55, 3))
    return world_of(
        Clusters(labels, day, day[::2], torch.arange(4)),
        Clusters(labels, night, night[::2], 4 + torch.arange(4)),
        number,
    )


def split_world(number: int) -> World:
    """A day cluster that is two clusters at night."""
    night = part([0, 0, 0, 0], 2)
    two = F.normalize(night.features.view(2, 2, -1).mean(dim=1), dim=1)
    halves = Clusters(torch.tensor([0, 0, 1, 1]), night.features, two, night.indices)
    return world_of(part([0, 0], 0), halves, number)


def observed(name: str, **options: Any) -> list[Tensor]:
    """All that a head does to a run: when it works, its losses and matchings, the rows it leaves."""
    head = configured(name, **options)
    seen = [torch.tensor([head.weight_at(epoch) for epoch in range(1, 101)])]
    for here in [
        turned_world(1),
        turned_world(6),
        turned_world(10),
        crossing_world(3),
        crossing_world(5),
        split_world(8),
    ]:
        head = configured(name, **options)
        before, batch = here.parts(), here.batch
        if head.has_loss:
            seen.append(head(batch, before).detach())
        parts = parts_of(head)
        parts.begin_epoch(here.epoch)
        sizes = [here.epoch[domain].num_clusters for domain in Domain]
        matching = parts.matching(name)
        seen += [t for d in Domain for t in (matching or Assignment.empty(*sizes)).partner(d)]
        if matching is None:
            plant(parts, Assignment.from_pairs(torch.tensor([[0, 1]]), torch.ones(1), *sizes))
        if head.has_loss:
            seen.append(head(batch, parts).detach())
        parts.after_step(batch.detach())
        seen += [parts.memory.rows(d) for d in Domain]
    return seen


def differ(a: list[Tensor], b: list[Tensor]) -> bool:
    return not all(x.shape == y.shape and torch.allclose(x, y, atol=1e-5) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
def test_every_key_of_the_section_changes_something(name: str) -> None:
    keys = set(get_cfg().MODEL.LOSSES[name.upper()])
    others = {**OTHER_VALUES[name], "WEIGHT": ((2, 0.7),)}
    assert set(others) == keys
    start = START.get(name, {})
    default = observed(name, **start)
    assert not differ(default, observed(name, **start))
    idle = [
        key for key, value in others.items() if not differ(default, observed(name, **{**start, key: value}))
    ]
    assert idle == []
