"""What the configs of the released systems come to: the recipe that all share, and one of its systems."""

from __future__ import annotations

from typing import Any

import pytest
from config_values import differences

SETS: dict[str, dict[str, Any]] = {
    "DN348": {"DATALOADER.ITERS_PER_EPOCH": 200, "CLUSTER.EPS": 0.6},
    "DNWild": {"DATALOADER.ITERS_PER_EPOCH": 400, "CLUSTER.EPS": 0.6},
    "RegDB": {"DATALOADER.ITERS_PER_EPOCH": 100, "CLUSTER.EPS": 0.3},
}
#: Sets for which the package has the recipe and no config of each system.
MORE_SETS = {name: {"DATALOADER.ITERS_PER_EPOCH": 200, "CLUSTER.EPS": 0.6} for name in ("SYSUMM01", "LLCM")}
RECIPE: dict[str, Any] = {
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.DEPTH": "50x",
    "MODEL.BACKBONE.WITH_NL": True,
    "MODEL.BACKBONE.LAST_STRIDE": 1,
    "MODEL.DUAL_STREAM.MODULES": ("conv1", "bn1"),
    "MODEL.HEADS.POOL_LAYER": "GeneralizedMeanPooling",
    "MODEL.MEMORY.MOMENTUM": 0.1,
    "MODEL.MEMORY.UPDATE": "sequential",
    "INPUT.SIZE_TRAIN": (288, 144),
    "INPUT.VIEWS.DAY": ((), ("exchange",)),
    "INPUT.VIEWS.NIGHT": (("channel_or_grey",),),
    "INPUT.REA.ENABLED": True,
    "INPUT.REA.PROB": 0.5,
    "DATALOADER.NUM_INSTANCE": 16,
    "CLUSTER.K1": 30,
    "CLUSTER.K2": 6,
    "CLUSTER.MIN_SAMPLES": 4,
    "CLUSTER.FLIP": True,
    "SOLVER.OPT": "Adam",
    "SOLVER.BASE_LR": 3.5e-4,
    "SOLVER.WEIGHT_DECAY": 5e-4,
    "SOLVER.STEPS": (20, 40),
    "SOLVER.GAMMA": 0.1,
    "SOLVER.STAGES": (51,),
    "SOLVER.MAX_EPOCH": 100,
    "SOLVER.IMS_PER_BATCH": 256,
    "TEST.FLIP.ENABLED": True,
}


@pytest.mark.parametrize("name", SETS | MORE_SETS)
def test_the_common_recipe(name: str) -> None:
    own = {**(SETS | MORE_SETS)[name], "DATASETS.NAMES": (name,), "DATASETS.TESTS": (name,)}
    assert differences(f"Base-Family-{name}", {**RECIPE, **own}) == {}


@pytest.mark.parametrize("name", SETS)
def test_cluster_contrast_is_one_stream_on_the_union(name: str) -> None:
    own: dict[str, Any] = {
        "MODEL.DUAL_STREAM.MODULES": (),
        "MODEL.LOSSES.NAME": ("JointContrast",),
        "MODEL.LOSSES.JOINTCONTRAST.STREAM": "union",
        "MODEL.LOSSES.JOINTCONTRAST.CLUSTERS": "joint",
        "MODEL.LOSSES.JOINTCONTRAST.PER_DOMAIN": False,
        "MODEL.LOSSES.JOINTCONTRAST.TEMPERATURE": 0.05,
        "LABELS.SOURCE": "UnionClusters",
        "DATALOADER.STREAMS": ("union",),
        "INPUT.VIEWS.DAY": ((),),
        "INPUT.VIEWS.NIGHT": ((),),
        "SOLVER.STAGES": (),
        "SOLVER.MAX_EPOCH": 50,
    }
    assert differences(f"ClusterContrast/{name.lower()}", {**RECIPE, **SETS[name], **own}) == {}
