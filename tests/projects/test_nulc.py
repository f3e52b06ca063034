"""NULC: what its configs come to, and a small run of it."""

from __future__ import annotations

import pytest
from config_values import differences
from fastreid.config import CfgNode
from run_helpers import SeenLosses, cut_and_resumed, label_phase, same, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer


@pytest.mark.parametrize(
    ("name", "stage", "neighbours", "rounds", "eps"),
    [
        ("dn348", 51, 30, 3, 0.6),
        ("dnwild", 51, 30, 3, 0.6),
        ("regdb", 51, 20, 2, 0.2),
        ("dnmini", 6, 12, 3, 0.5),
    ],
)
def test_configs_are_the_released_codes(
    name: str, stage: int, neighbours: int, rounds: int, eps: float
) -> None:
    head = "MODEL.LOSSES.NEIGHBOURTARGETS."
    expected = {
        "MODEL.LOSSES.NAME": ["ClusterNCE", "NeighbourTargets"],
        "MODEL.LOSSES.CLUSTERNCE.WEIGHT": [[1, 1.0], [stage, 0.0]],
        f"{head}WEIGHT": [[stage, 1.0]],
        f"{head}NEIGHBOURS": neighbours,
        f"{head}MAX_ROUNDS": rounds,
        f"{head}KEEP": 0.7,
        f"{head}SHARPNESS": 10.0,
        f"{head}CROSS_WEIGHT": 3.0,
        f"{head}TEMPERATURE": 0.05,
        f"{head}ALTERNATE": True,
        "MODEL.MEMORY.MOMENTUM": 0.2,
        "MODEL.MEMORY.UPDATE": "sequential",
        "CLUSTER.EPS": eps,
        "CLUSTER.MIN_SAMPLES": 4,
        "SOLVER.STAGES": [stage],
        "SOLVER.MAX_EPOCH": 2 * stage - 2,
    }
    assert differences(f"NULC/{name}", expected) == {}


def test_a_run_resumes_inside_an_epoch_bit_exactly(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "NeighbourTargets")
    tiny_cfg.MODEL.LOSSES.CLUSTERNCE.WEIGHT = ((1, 1.0), (2, 0.0))
    tiny_cfg.MODEL.LOSSES.NEIGHBOURTARGETS.merge_from_list(["WEIGHT", ((2, 1.0),), "NEIGHBOURS", 5])
    seen, whole = SeenLosses(), CrossDomainTrainer(tiny_cfg)
    whole.register_hooks([seen])
    whole.resume_or_load()
    whole.train()
    names = [["loss_clusternce"]] * 4 + [["loss_neighbourtargets"]] * 4
    assert [sorted(one) for one in seen.losses] == names
    assert all(0 < float(loss) < 50 for one in seen.losses for loss in one.values())
    tiny_cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(tiny_cfg, 6)
    assert same(weights(resumed), weights(whole))
    assert label_phase(resumed) is not None
