"""fast-reid's own losses beside ours: the right function, options and labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from fastreid.config import get_cfg
from fastreid.modeling import losses
from head_world import World, build, configured, parts_of, turned_world, world

from dnreid_plugins.functional.types import Domain
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.modeling.loss_heads import build_loss_heads

CALLS: dict[str, tuple[dict[str, Any], Any]] = {
    "TripletLoss": (
        {"MARGIN": 4.0, "NORM_FEAT": True, "HARD_MINING": False},
        lambda f, t: losses.triplet_loss(f, t, margin=4.0, norm_feat=True, hard_mining=False),
    ),
    "CircleLoss": (
        {"MARGIN": 0.4, "GAMMA": 16},
        lambda f, t: losses.pairwise_circleloss(f, t, margin=0.4, gamma=16),
    ),
    "Cosface": (
        {"MARGIN": 0.4, "GAMMA": 16},
        lambda f, t: losses.pairwise_cosface(f, t, margin=0.4, gamma=16),
    ),
}


def with_joint(here: World) -> World:
    """Clusters of both domains together: images 0, 3, 6 ... are one, 1, 4, 7 ... the other; the rest are outliers."""
    features = torch.cat([here.epoch[domain].features for domain in Domain])
    images = torch.arange(len(features))
    joint = make_clusters(torch.tensor([0, 1, -1])[images % 3], features, images)
    return replace(here, epoch=replace(here.epoch, clusters={**here.epoch.clusters, "joint": joint}))


@pytest.mark.parametrize("name", sorted(CALLS))
def test_it_is_fastreids_function_of_all_images_in_a_cluster(name: str) -> None:
    options, expected = CALLS[name]
    here = turned_world()
    batch = here.batch
    known = batch.targets >= 0
    # A day cluster and a night cluster are never the same identity.
    targets = torch.where(batch.domains == 1, batch.targets + 3, batch.targets)
    loss = here.loss(configured(name, **options))
    assert loss.item() > 0
    torch.testing.assert_close(loss, expected(batch.features[known], targets[known]))
    torch.testing.assert_close(loss, expected(batch.features[known].double(), targets[known]).float())
    default = here.loss(configured(name))
    assert default.item() != pytest.approx(loss.item(), rel=1e-3)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_joint_clusters_are_the_labels_where_there_are_some(name: str) -> None:
    options, expected = CALLS[name]
    here = with_joint(turned_world())
    known = here.batch.indices % 3 < 2
    loss = here.loss(configured(name, **options))
    want = expected(here.batch.features[known], (here.batch.indices % 3)[known])
    torch.testing.assert_close(loss, want)
    assert loss.item() != pytest.approx(turned_world().loss(configured(name, **options)).item(), rel=1e-3)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_one_cluster_alone_gives_no_loss(name: str) -> None:
    here = world([0, 0], [-1, -1])
    loss = here.loss(build(name, MARGIN=9.0))
    loss.backward()
    assert loss.item() == 0.0


def test_the_weight_is_the_scale_of_fastreids_section() -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "TripletLoss", "CircleLoss", "Cosface")
    cfg.MODEL.LOSSES.TRI.SCALE, cfg.MODEL.LOSSES.CIRCLE.SCALE, cfg.MODEL.LOSSES.COSFACE.SCALE = 0.7, 0.0, 2.0
    parts = parts_of(*build_loss_heads(cfg).values())
    parts.begin_epoch(turned_world(9).epoch)
    found = {name: head.weight_at(9) for name, head in parts.active_heads()}
    assert found == {"ClusterNCE": 1.0, "TripletLoss": 0.7, "Cosface": 2.0}
