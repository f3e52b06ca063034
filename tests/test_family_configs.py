"""What the configs of the released systems come to: the recipe that all share, and one of its systems."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from fastreid.config import CfgNode, get_cfg

from dnreid_plugins.runtime.config_files import merge_with_suggestions

ROOT = Path(__file__).resolve().parents[1]
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


def read(path: str) -> CfgNode:
    cfg = get_cfg()
    merge_with_suggestions(cfg, str(ROOT / path), [])
    return cfg


def plain(value: Any) -> Any:
    """Lists as tuples, at any depth."""
    return tuple(map(plain, value)) if isinstance(value, (list, tuple)) else value


def values(cfg: CfgNode, keys: Any) -> dict[str, Any]:
    return {key: plain(reduce(lambda node, name: node[name], key.split("."), cfg)) for key in keys}


@pytest.mark.parametrize("name", SETS | MORE_SETS)
def test_the_common_recipe(name: str) -> None:
    wanted = {**RECIPE, **(SETS | MORE_SETS)[name]}
    cfg = read(f"configs/Base-Family-{name}.yml")
    assert values(cfg, wanted) == wanted
    assert tuple(cfg.DATASETS.NAMES) == tuple(cfg.DATASETS.TESTS) == (name,)


@pytest.mark.parametrize("name", SETS)
def test_cluster_contrast_is_one_stream_on_the_union(name: str) -> None:
    cfg = read(f"projects/ClusterContrast/configs/{name.lower()}.yml")
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
    wanted = {**RECIPE, **SETS[name], **own}
    assert values(cfg, wanted) == wanted
