"""DGM over the epochs: who gets its matching, what it keeps, where its ramp starts, which rows it moves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from head_world import configured, renumbered, turned_world, world

from dnreid_plugins.engine.hooks import begin_epoch
from dnreid_plugins.functional.types import Domain, DomainClusters, EpochClusters
from dnreid_plugins.modeling.loss_heads import build_loss_heads


def test_begin_epoch_hands_the_matching_of_dgm_to_every_head() -> None:
    for always in (False, True):
        cfg = get_cfg()
        cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "MAA", "DGM")
        cfg.MODEL.LOSSES.DGM.WEIGHT = ((2, 0.3),)
        cfg.MODEL.LOSSES.DGM.MATCH_ALWAYS = always
        heads = build_loss_heads(cfg)
        for epoch in (1, 2):
            clusters, memory, _ = turned_world(epoch)
            model = SimpleNamespace(loss_heads=heads, memory=memory, device="cpu", epoch=0)
            figures, assignment = begin_epoch(model, clusters)
            matched = always or epoch == 2
            assert ("DGM" in figures) == matched and (assignment is not None) == matched
            assert all(head.matching is assignment for head in heads.values())
            if matched:
                assert assignment is heads["DGM"].assignment
                assert assignment is not None and assignment.day_to_night.tolist() == [1, 2, 0]


def late(clusters: EpochClusters, day: DomainClusters | None = None) -> EpochClusters:
    """The last epoch of 100: the ramp is beyond every score."""
    return EpochClusters(day or clusters.day, clusters.night, 100, 100)


def test_dgm_keeps_the_last_matching_across_a_renumbering() -> None:
    head = configured("DGM", ON_EMPTY="keep_last")
    clusters, memory, _ = world([0, 0, 1, 1], [0, 0, 1, 1])
    head.begin_epoch(clusters, memory)
    assert head.assignment is not None and head.assignment.day_to_night.tolist() == [0, 1]
    state = head.carry_over()
    after = late(clusters, renumbered(clusters.day, [1, 0]))
    resumed = configured("DGM", ON_EMPTY="keep_last")
    resumed.load_carry_over(state)
    for one in (head, resumed):
        one.begin_epoch(after, memory)
        assert one.assignment is not None and one.assignment.day_to_night.tolist() == [1, 0]


@pytest.mark.parametrize("resumes", [False, True])
def test_dgm_keeps_the_last_matching_across_an_epoch_without_clusters(resumes: bool) -> None:
    head = configured("DGM", ON_EMPTY="keep_last")
    clusters, memory, _ = world([0, 0, 1, 1], [0, 0, 1, 1])
    head.begin_epoch(clusters, memory)
    day = clusters.day
    nothing = DomainClusters(torch.full_like(day.labels, -1), day.features, day.centroids[:0], day.indices)
    for epoch in (late(clusters, nothing), late(clusters, renumbered(day, [1, 0]))):
        if resumes:  # a checkpoint between two epochs and one inside an epoch, whose start is replayed
            state, head = head.carry_over(), configured("DGM", ON_EMPTY="keep_last")
            head.load_carry_over(state)
            head.begin_epoch(epoch, memory)
            state, head = head.carry_over(), configured("DGM", ON_EMPTY="keep_last")
            head.load_carry_over(state)
        head.begin_epoch(epoch, memory)
        assert head.assignment is not None
        assert head.assignment.day_to_night.tolist() == ([] if epoch.day is nothing else [1, 0])


@pytest.mark.parametrize("weight", [((6, 0.3),), ((1, 0.0), (6, 0.3))])
def test_dgm_progress_of_the_stage_starts_at_its_first_epoch(weight: tuple) -> None:
    thresholds = {}
    for progress in ("global", "stage"):
        for epoch in (1, 5, 6, 8):
            clusters, memory, _ = world([0, 0], [0, 0], epoch)
            head = configured("DGM", WEIGHT=weight, PROGRESS=progress, MATCH_ALWAYS=True)
            thresholds[progress, epoch] = head.begin_epoch(clusters, memory)["threshold"]
    for epoch, over in ((1, 0.0), (5, 0.0), (6, 0.0), (8, 2 / 5)):
        assert thresholds["stage", epoch] == pytest.approx(0.7 + 0.45 * over)
        assert thresholds["global", epoch] == pytest.approx(0.7 + 0.45 * (epoch - 1) / 10)


def test_dgm_may_move_the_other_domains_rows() -> None:
    clusters, memory, batch = turned_world()
    head = configured("DGM", UPDATE_OTHER=True)
    head.begin_epoch(clusters, memory)
    assert head.assignment is not None and head.assignment.night_to_day.tolist() == [2, 0, 1, -1]
    expected = [memory.rows(d).clone() for d in Domain]
    for feature, cluster, domain in zip(
        batch.unit.detach(), batch.targets.tolist(), batch.domains.tolist(), strict=True
    ):
        partner = -1 if cluster < 0 else int(head.assignment.partner(domain)[0][cluster])
        if partner >= 0:
            row = expected[1 - domain][partner]
            expected[1 - domain][partner] = F.normalize(0.1 * row + 0.9 * feature, dim=0)
    head.after_step(batch.detach(), memory)
    for domain in Domain:
        torch.testing.assert_close(memory.rows(domain), expected[domain])
