"""The contrast with matched clusters as a head: which matcher, which directions, whose rows move."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastreid.config import get_cfg
from head_world import build, rows_of, turned_world

from dnreid_plugins.engine.preflight import check
from dnreid_plugins.functional.losses.contrast import mutual_mapping_loss
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.loss_heads import build_loss_heads
from dnreid_plugins.modeling.matchers import MATCHER_REGISTRY
from dnreid_plugins.runtime.config_files import ConfigError

TINY = Path(__file__).resolve().parents[2] / "tiny.yml"
FREE = sorted(set(MATCHER_REGISTRY.names()) - {"JointMatcher"})


@pytest.mark.parametrize("name", FREE)
def test_the_config_names_the_matcher(name: str) -> None:
    world, head = turned_world(), build("CrossContrast", MATCHER=name)
    assert type(head.matcher).__name__ == name
    loss = world.loss(head)
    assert float(loss) > 0
    (gradient,) = torch.autograd.grad(loss, world.batch.features)
    assert float(gradient.norm()) > 0


def test_its_keys_are_those_of_the_matcher() -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ("CrossContrast",)
    cfg.MODEL.LOSSES.CROSSCONTRAST.MATCHER = "MutualNeighbours"
    cfg.MODEL.MATCHERS.MUTUALNEIGHBOURS.TOP_K = 3
    assert build_loss_heads(cfg)["CrossContrast"].matcher.top_k == 3


def test_an_unknown_matcher_is_refused_before_any_image_is_read() -> None:
    cfg = get_cfg()
    cfg.merge_from_file(str(TINY))
    cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "CrossContrast")
    cfg.MODEL.LOSSES.CROSSCONTRAST.MATCHER = "Nearest"
    with pytest.raises(ConfigError, match="MATCHER is 'Nearest'; it is one of"):
        check(cfg)


@pytest.mark.parametrize("number", [1, 2])
def test_alternation_gives_one_direction_an_epoch(number: int) -> None:
    world = turned_world(number)
    both, alternate = build("CrossContrast"), build("CrossContrast", DIRECTIONS="alternate")
    parts = world.parts(both)
    assignment = parts.matching("CrossContrast")
    assert assignment is not None
    expected = {}
    for domain in Domain:
        part, partner = world.batch.of(domain), assignment.partner(domain)[0]
        rows = parts.memory.rows(domain.other)
        weight = (partner >= 0).float()
        expected[domain] = mutual_mapping_loss(part.unit, part.targets, partner, weight, rows)
    assert torch.allclose(world.loss(both), expected[Domain.DAY] + expected[Domain.NIGHT])
    active = Domain.NIGHT if number == 1 else Domain.DAY
    assert torch.allclose(world.loss(alternate), expected[active])
    assert torch.equal(world.loss(alternate), world.loss(build("PGM")))


def test_scores_weigh_the_pairs() -> None:
    world = turned_world()
    plain, weighed = (build("CrossContrast", MATCHER="DictionaryMatcher", SCORES=on) for on in (False, True))
    assert float(world.loss(weighed)) != float(world.loss(plain))
    assert torch.equal(world.loss(weighed), world.loss(build("DGM")))


def test_matched_images_move_the_other_row_only_if_asked() -> None:
    world = turned_world()
    for on in (False, True):
        head = build("CrossContrast", UPDATE_OTHER=on)
        parts = world.parts(head)
        before = rows_of(parts)
        head.after_step(world.batch.detach(), parts)
        assert all(torch.equal(rows, before[d]) != on for d, rows in rows_of(parts).items())


def test_nobody_matched_costs_nothing() -> None:
    world, head = turned_world(), build("CrossContrast")
    parts = world.parts(head)
    assert parts.epoch is not None
    parts.epoch = replace(parts.epoch, matchings={})
    loss = head(world.batch, parts)
    assert float(loss) == 0 and loss.requires_grad
