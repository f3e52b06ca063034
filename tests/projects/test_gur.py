"""GUR without cameras: what its configs come to, and a small run through its three kinds of clusters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from config_values import differences
from fastreid.config import CfgNode
from run_helpers import SeenLosses, cut_and_resumed, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.types import Domain


@pytest.mark.parametrize(
    ("name", "start", "last", "epochs", "votes", "smoothing", "eps"),
    [
        ("dn348", 21, 25, 50, 10, 10, 0.6),
        ("dnwild", 21, 25, 50, 10, 10, 0.6),
        ("regdb", 21, 25, 30, 10, 10, 0.3),
        ("dnmini", 6, 7, 10, 8, 5, 0.5),
    ],
)
def test_configs_are_the_released_codes(
    name: str, start: int, last: int, epochs: int, votes: int, smoothing: int, eps: float
) -> None:
    expected: dict[str, Any] = {
        "MODEL.LOSSES.NAME": ["ClusterNCE", "JointContrast", "SharedContrast"],
        "MODEL.LOSSES.CLUSTERNCE.WEIGHT": [[1, 1.0], [start, 0.0]],
        "MODEL.LOSSES.JOINTCONTRAST.WEIGHT": [[1, 1.0], [last + 1, 0.0]],
        "MODEL.LOSSES.JOINTCONTRAST.CLUSTERS": "joint",
        "MODEL.LOSSES.SHAREDCONTRAST.WEIGHT": [[start, 1.0]],
        "MODEL.LOSSES.SHAREDCONTRAST.CLUSTERS": "shared",
        "MODEL.MEMORY.MOMENTUM": 0.1,
        "LABELS.REFINERS": ["JointClusters", "TransferByVote", "MajoritySmooth"],
        "LABELS.JOINTCLUSTERS.START": 1,
        "LABELS.JOINTCLUSTERS.LAST": last,
        "LABELS.JOINTCLUSTERS.CODES": "softmax",
        "LABELS.JOINTCLUSTERS.TEMPERATURE": 0.05,
        "LABELS.JOINTCLUSTERS.BALANCED": False,
        "LABELS.JOINTCLUSTERS.EPS": eps,
        "LABELS.TRANSFERBYVOTE.START": start,
        "LABELS.TRANSFERBYVOTE.NEIGHBOURS": votes,
        "LABELS.TRANSFERBYVOTE.RELABELS": "day",
        "LABELS.TRANSFERBYVOTE.WEIGHTS": "softmax",
        "LABELS.MAJORITYSMOOTH.START": start,
        "LABELS.MAJORITYSMOOTH.NEIGHBOURS": smoothing,
        "LABELS.MAJORITYSMOOTH.SMOOTHS": "day",
        "DATALOADER.STREAMS": ["domains", "joint"],
        "SOLVER.MAX_EPOCH": epochs,
        "SOLVER.STAGES": [],
        "CLUSTER.EPS": eps,
    }
    assert differences(f"GUR/{name}", expected) == {}


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    """Three epochs: own and joint clusters, joint and shared ones, shared ones."""
    losses = tiny_cfg.MODEL.LOSSES
    losses.NAME = ("ClusterNCE", "JointContrast", "SharedContrast")
    losses.CLUSTERNCE.WEIGHT, losses.JOINTCONTRAST.WEIGHT = ((1, 1.0), (2, 0.0)), ((1, 1.0), (3, 0.0))
    losses.SHAREDCONTRAST.WEIGHT = ((2, 1.0),)
    labels = tiny_cfg.LABELS
    labels.REFINERS = ("JointClusters", "TransferByVote", "MajoritySmooth")
    joint: list[Any] = ["LAST", 2, "CODES", "softmax", "TEMPERATURE", 0.5]
    joint += ["K1", 12, "K2", 2, "EPS", 0.8, "MIN_SAMPLES", 2]
    labels.JOINTCLUSTERS.merge_from_list(joint)
    labels.TRANSFERBYVOTE.merge_from_list(["START", 2, "NEIGHBOURS", 3])
    labels.MAJORITYSMOOTH.merge_from_list(["START", 2, "NEIGHBOURS", 3])
    tiny_cfg.DATALOADER.STREAMS = ("domains", "joint")
    # slow enough that clusters stay mixed
    tiny_cfg.SOLVER.MAX_EPOCH, tiny_cfg.SOLVER.BASE_LR = 3, 0.0005
    return tiny_cfg


def test_a_run_goes_through_its_clusters(cfg: CfgNode) -> None:
    seen, whole = SeenLosses(), CrossDomainTrainer(cfg)
    whole.register_hooks([seen])
    whole.resume_or_load()
    whole.train()
    own, joint, shared = ["loss_clusternce"], ["loss_jointcontrast"], ["loss_sharedcontrast"]
    assert [sorted(one) for one in seen.losses] == [own, joint] * 4 + [shared, joint] * 4 + [shared] * 4
    assert all(0 < float(loss) < 20 for one in seen.losses for loss in one.values())
    health = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "health.jsonl").read_text().splitlines()]
    assert ["joint/mixed" in row for row in health] == [True, True, False]
    assert ["shared/clusters" in row for row in health] == [False, True, True]
    epoch = whole.parts.epoch
    assert epoch is not None and epoch.clusters["shared"].num_clusters == epoch.night.num_clusters
    assert torch.equal(epoch.targets("shared", epoch.night.indices), epoch.night.labels)
    day = epoch.targets("shared", epoch[Domain.DAY].indices)
    assert torch.equal(day >= 0, epoch.day.labels >= 0)
    assert not torch.equal(whole.parts.memory.rows("shared"), epoch.night.centroids), (
        "no batch moves shared rows"
    )


@pytest.mark.parametrize("iteration", [2, 6, 10])
def test_it_resumes_inside_each_epoch_bit_exactly(cfg: CfgNode, iteration: int) -> None:
    whole = CrossDomainTrainer(cfg)
    whole.resume_or_load()
    whole.train()
    cfg.OUTPUT_DIR += "-cut"
    a, b = weights(cut_and_resumed(cfg, iteration)), weights(whole)
    assert a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []
