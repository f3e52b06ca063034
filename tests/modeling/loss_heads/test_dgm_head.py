"""DGM over the epochs: who gets its matching, and which rows it moves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from head_world import build, parts_of, rows_of, turned_world

from dnreid_plugins.functional.losses.adaptive_alignment import maa_loss
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.loss_heads import build_loss_heads


def test_the_matching_of_dgm_reaches_every_part() -> None:
    for always in (False, True):
        cfg = get_cfg()
        cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "MAA", "DGM")
        cfg.MODEL.LOSSES.DGM.WEIGHT = ((2, 0.3),)
        cfg.MODEL.LOSSES.DGM.MATCH_ALWAYS = always
        parts = parts_of(*build_loss_heads(cfg).values())
        for number in (1, 2):
            here = turned_world(number)
            figures = parts.begin_epoch(here.epoch)
            assert parts.epoch is not None and parts.epoch.clusters is here.epoch.clusters
            matched = always or number == 2
            matching = parts.matching("DGM")
            assert ("DGM" in figures) == matched and (matching is not None) == matched
            assert parts.epoch.matching is matching
            day, night = (here.batch.of(domain) for domain in Domain)
            maps = []
            if matching is not None:
                assert matching.day_to_night.tolist() == [1, 2, 0] and figures["DGM"]["edges"] >= 3
                maps = [matching.day_to_night, matching.night_to_day]
            expected = maa_loss(day.unit, night.unit, day.targets, night.targets, *maps).loss
            assert torch.equal(parts.losses["MAA"](here.batch, parts), expected)


def test_dgm_may_move_the_other_domains_rows() -> None:
    """After the memory's own update, row by row in the order of the batch."""
    here = turned_world()
    parts, batch = here.parts(build("DGM", UPDATE_OTHER=True)), here.batch.detach()
    matching = parts.matching("DGM")
    assert matching is not None and matching.night_to_day.tolist() == [2, 0, 1, -1]
    expected = rows_of(parts)

    def move(domain: Domain, cluster: int, feature: torch.Tensor) -> None:
        row = expected[domain][cluster]
        expected[domain][cluster] = F.normalize(0.1 * row + 0.9 * feature, dim=0)

    images = list(zip(batch.unit, batch.targets.tolist(), map(Domain, batch.domains.tolist()), strict=True))
    for feature, cluster, domain in images:
        if cluster >= 0:
            move(domain, cluster, feature)
    for feature, cluster, domain in images:
        partner = -1 if cluster < 0 else int(matching.partner(domain)[0][cluster])
        if partner >= 0:
            move(domain.other, partner, feature)
    parts.after_step(batch)
    for domain in Domain:
        torch.testing.assert_close(parts.memory.rows(domain), expected[domain])
