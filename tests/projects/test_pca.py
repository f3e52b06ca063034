"""PCA: what its shipped configs come to, and a tiny run of both stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from config_values import differences, read
from fastreid.config import CfgNode
from run_helpers import SeenLosses, cut_and_resumed, same, train, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.shipped import config_path

# Section 3.8 of the reference: both stages.
FULL: dict[str, Any] = {
    "SOLVER.MAX_EPOCH": 100,
    "SOLVER.STAGES": [51],
    "SOLVER.OPT": "Adam",
    "SOLVER.BASE_LR": 3.5e-4,
    "SOLVER.IMS_PER_BATCH": 128,  # 64 of either domain, each day image twice
    "INPUT.VIEWS.DAY": [[], ["exchange"]],
    "DATALOADER.NUM_INSTANCE": 16,
    "DATALOADER.STREAMS": ["domains", "joint"],
    "MODEL.MEMORY.MOMENTUM": 0.1,
    "MODEL.LOSSES.NAME": ["ClusterNCE", "DomainConfusion", "JointContrast"],
    "MODEL.LOSSES.CLUSTERNCE.WEIGHT": [[1, 1.0]],
    "MODEL.LOSSES.DOMAINCONFUSION.WEIGHT": [[26, 1.0], [51, 0.1]],
    "MODEL.LOSSES.DOMAINCONFUSION.HIDDEN": 1024,
    "MODEL.LOSSES.DOMAINCONFUSION.LR": [
        [first + border, rate] for first in (1, 51) for border, rate in ((0, 0.01), (20, 0.001), (40, 0.0001))
    ],
    "MODEL.LOSSES.DOMAINCONFUSION.MOMENTUM": 0.9,
    "MODEL.LOSSES.DOMAINCONFUSION.WEIGHT_DECAY": 5e-4,
    "MODEL.LOSSES.JOINTCONTRAST.WEIGHT": [[51, 1.0]],
    "MODEL.LOSSES.JOINTCONTRAST.TEMPERATURE": 0.05,
    "LABELS.REFINERS": ["JointClusters"],
    "LABELS.JOINTCLUSTERS.START": 51,
    "LABELS.JOINTCLUSTERS.BALANCED": True,
}
MINI = {
    "SOLVER.MAX_EPOCH": 10,
    "SOLVER.STAGES": [6],
    "INPUT.VIEWS.DAY": [[], ["exchange"]],
    "DATALOADER.STREAMS": ["domains", "joint"],
    "MODEL.LOSSES.NAME": ["ClusterNCE", "DomainConfusion", "JointContrast"],
    "MODEL.LOSSES.DOMAINCONFUSION.WEIGHT": [[3, 1.0], [6, 0.1]],
    "MODEL.LOSSES.DOMAINCONFUSION.LR": [[1, 0.01]],
    "MODEL.LOSSES.JOINTCONTRAST.WEIGHT": [[6, 1.0]],
    "LABELS.REFINERS": ["JointClusters"],
    "LABELS.JOINTCLUSTERS.START": 6,
    "LABELS.JOINTCLUSTERS.BALANCED": True,
}
#: Neighbours and radius of the joint clusters, and the own clusters' radius.
SETS = {
    "dn348": (FULL, 40, 32, 0.6, 0.6),
    "dnwild": (FULL, 40, 32, 0.6, 0.6),
    "regdb": (FULL, 38, 18, 0.3, 0.3),
    "dnmini": (MINI, 16, 12, 0.5, 0.5),
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_the_configs_are_the_references(name: str) -> None:
    expected, k1, k2, eps, own = SETS[name]
    joint = {"LABELS.JOINTCLUSTERS.K1": k1, "LABELS.JOINTCLUSTERS.K2": k2, "LABELS.JOINTCLUSTERS.EPS": eps}
    assert differences(f"PCA/{name}", {**expected, **joint, "CLUSTER.EPS": own}) == {}


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    """The parts of the mini config in two epochs of four iterations: confusion and joint clusters in the second."""
    mini = read(config_path("PCA/dnmini"))
    tiny_cfg.MODEL.LOSSES, tiny_cfg.LABELS = mini.MODEL.LOSSES, mini.LABELS
    tiny_cfg.INPUT.VIEWS, tiny_cfg.DATALOADER.STREAMS = mini.INPUT.VIEWS, mini.DATALOADER.STREAMS
    tiny_cfg.MODEL.LOSSES.DOMAINCONFUSION.update(WEIGHT=((2, 0.1),), HIDDEN=16)
    tiny_cfg.MODEL.LOSSES.JOINTCONTRAST.WEIGHT = ((2, 1.0),)
    # In so small a set this gives one cluster of both domains and three of one, which are negatives.
    tiny_cfg.LABELS.JOINTCLUSTERS.update(START=2, K1=12, K2=8, EPS=0.7, MIN_SAMPLES=2)
    tiny_cfg.DATASETS.TESTS, tiny_cfg.AUDIT.PERIOD = (), 1
    return tiny_cfg


def test_a_tiny_run_trains_every_part_and_resumes_bit_exactly(
    cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    whole, seen = CrossDomainTrainer(cfg), SeenLosses()
    head: Any = whole.parts.losses["DomainConfusion"]
    after_step, streams = head.after_step, []

    def watched(batch: Any, parts: Any) -> None:
        streams.append(batch.stream)
        after_step(batch, parts)

    head.after_step = watched
    whole.register_hooks([seen])
    whole.train()
    assert streams == ["domains"] * 8  # once per iteration, never on the second step's batch
    own, joint = ["loss_clusternce", "loss_domainconfusion"], ["loss_jointcontrast"]
    assert [sorted(one) for one in seen.losses] == [own[:1]] * 4 + [own, joint] * 4
    assert all(bool(torch.isfinite(loss)) and float(loss) > 0 for one in seen.losses for loss in one.values())
    assert "has gradient exactly 0" not in caplog.text

    cfg.OUTPUT_DIR += "-cut"
    assert same(weights(cut_and_resumed(cfg, 6)), weights(whole))


def test_without_the_joint_stream_it_is_refused(cfg: CfgNode) -> None:
    cfg.DATALOADER.STREAMS = ("domains",)
    with pytest.raises(ValueError, match=r"DATALOADER\.STREAMS"):
        train(cfg)
