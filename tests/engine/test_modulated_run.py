"""DNDM as its shipped configs name it, on the tiny network: trains, resumes, in half precision, in two processes."""

from __future__ import annotations

import logging
from functools import reduce
from pathlib import Path
from typing import Any

import gloo_jobs
import pytest
import torch
from config_values import ROOT, differences, read
from fastreid.config import CfgNode
from fastreid.modeling.meta_arch import build_model
from gloo_jobs import OPTIONS, shortfalls
from run_helpers import SeenLosses, cut_and_resumed, same, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer

CONFIGS = ROOT / "projects" / "DNDM" / "configs"
LOSSES = ["loss_glaremask", "loss_hardtriplet", "loss_identityclassifier"]
SWITCHES = ("MODEL.BLOCKS.GLARESUPPRESSION.AS_RELEASED", "MODEL.LOSSES.GLAREMASK.AS_RELEASED")
#: The tiny network's stem ends with bn1; what makes a stage there is each of its two layers.
PLACES: list[Any] = ["MODEL.BLOCKS.GLARESUPPRESSION.AFTER", ["bn1"]]
PLACES += [
    "MODEL.BLOCKS.STRUCTUREENHANCEMENT.AFTER",
    ["bn1", "bn2"],
    "MODEL.BLOCKS.CLASSATTENTION.AFTER",
    ["bn1", "bn2"],
]


def method(name: str) -> list[Any]:
    """What makes the system in a shipped config, besides network and recipe, for the tiny config."""
    cfg = read(CONFIGS / f"{name}.yml")
    options: list[Any] = []
    for key in ("LABELS.SOURCE", "DATALOADER.PAIRED", "MODEL.BLOCKS.NAME", "MODEL.LOSSES.NAME", *SWITCHES):
        options += [key, reduce(lambda node, part: node[part], key.split("."), cfg)]
    return [*options, *PLACES]


@pytest.mark.parametrize("name", ["dn348", "as-released"])
def test_a_run_trains_and_resumes_inside_an_epoch_bit_exactly(
    tiny_cfg: CfgNode, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_cfg.merge_from_list(method(name))
    caplog.set_level(logging.INFO)
    seen, whole = SeenLosses(), CrossDomainTrainer(tiny_cfg)
    whole.register_hooks([seen])
    before = weights(whole)
    whole.resume_or_load()
    whole.train()
    assert [sorted(one) for one in seen.losses] == [LOSSES] * 8
    assert "audit, gradient norm" in caplog.text and "gradient exactly 0" not in caplog.text
    after = weights(whole)
    own = [key for key in after if key.endswith(("weigh.weight", "project.weight"))]
    assert len(own) == 3 and not any(torch.equal(before[key], after[key]) for key in own)
    first, last = (
        sum(float(one["loss_identityclassifier"]) for one in h) for h in (seen.losses[:4], seen.losses[4:])
    )
    assert last < first
    tiny_cfg.OUTPUT_DIR += "-cut"
    assert same(weights(cut_and_resumed(tiny_cfg, 6)), after)


def test_two_processes_compute_what_one_does(
    tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clusters of day and night are drawn apart, so that an image's partners are in the other process."""
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = [*OPTIONS, *method("dn348"), "DATALOADER.PAIRED", False, "DATALOADER.ITERS_PER_EPOCH", 4]
    # Attention of a new classifier is nearly the same everywhere; a large gain shows how it differs.
    options += ["MODEL.BLOCKS.CLASSATTENTION.GAIN", 5.0, "SOLVER.BASE_LR", 0.01]
    alone = gloo_jobs.train([*options, "OUTPUT_DIR", str(tmp_path / "alone")])
    pool = gloo_jobs.Pool(tmp_path, size=2)
    try:
        every = pool.run(2, "train", [*options, "OUTPUT_DIR", str(tmp_path / "two")])
    finally:
        pool.close()
    assert shortfalls(alone, every) == []


#: What the reference gives for the released system, and where ours differs from it.
SETTINGS: dict[str, Any] = {
    "INPUT.SIZE_TRAIN": [256, 256],
    "INPUT.SIZE_TEST": [256, 256],
    "INPUT.REA.ENABLED": True,
    "INPUT.REA.PROB": 0.5,
    "INPUT.REA.MODE": "constant",
    "INPUT.REA.VALUE": [0.485 * 255, 0.456 * 255, 0.406 * 255],  # 0 after normalisation
    "INPUT.PADDING.ENABLED": True,
    "INPUT.FLIP.ENABLED": True,
    "LABELS.SOURCE": "Identities",
    "DATALOADER.PAIRED": True,
    "DATALOADER.NUM_INSTANCE": 4,
    "SOLVER.IMS_PER_BATCH": 64,
    "SOLVER.OPT": "SGD",
    "SOLVER.BASE_LR": 0.1,
    "SOLVER.MOMENTUM": 0.9,
    "SOLVER.NESTEROV": True,
    "SOLVER.WEIGHT_DECAY": 5e-4,
    "SOLVER.LR_FACTORS": [["^backbone[.]", 0.1]],
    "SOLVER.STEPS": [20, 50],
    "SOLVER.MAX_EPOCH": 81,
    "MODEL.BACKBONE.WITH_NL": True,
    "MODEL.DUAL_STREAM.MODULES": ["conv1", "bn1"],
    "MODEL.HEADS.POOL_LAYER": "GeneralizedMeanPooling",
    "MODEL.BLOCKS.NAME": ["GlareSuppression", "StructureEnhancement", "ClassAttention"],
    "MODEL.BLOCKS.GLARESUPPRESSION.AFTER": ["maxpool"],
    "MODEL.BLOCKS.GLARESUPPRESSION.THRESHOLD": 220.0,
    "MODEL.BLOCKS.GLARESUPPRESSION.AS_RELEASED": False,
    "MODEL.BLOCKS.STRUCTUREENHANCEMENT.AFTER": ["layer1.2", "NL_2.1", "NL_3.2", "layer4.2"],
    "MODEL.BLOCKS.CLASSATTENTION.AFTER": ["layer1.2", "NL_2.1", "NL_3.2", "layer4.2"],
    "MODEL.BLOCKS.CLASSATTENTION.GAIN": 0.05,
    "MODEL.LOSSES.NAME": ["IdentityClassifier", "HardTriplet", "GlareMask"],
    "MODEL.LOSSES.HARDTRIPLET.MARGIN": 0.3,
    "MODEL.LOSSES.GLAREMASK.WEIGHT": [(1, 1.0)],
    "MODEL.LOSSES.GLAREMASK.AS_RELEASED": False,
}
STAGES = ["layer1.2", "layer2.3", "layer3.5", "layer4.2"]
RELEASED = {
    "MODEL.BACKBONE.WITH_NL": False,
    "MODEL.BLOCKS.GLARESUPPRESSION.AS_RELEASED": True,
    "MODEL.BLOCKS.STRUCTUREENHANCEMENT.AFTER": STAGES,
    "MODEL.BLOCKS.CLASSATTENTION.AFTER": STAGES,
    "MODEL.LOSSES.GLAREMASK.AS_RELEASED": True,
}
#: Ten epochs of the mini data set, behind two stages of ShuffleNet.
MINI = {
    "SOLVER.MAX_EPOCH": 10,
    "SOLVER.STEPS": [7],
    "SOLVER.STAGES": [],
    "SOLVER.BASE_LR": 0.0002,
    "LABELS.SOURCE": "Identities",
    "DATALOADER.PAIRED": True,
    "MODEL.BLOCKS.GLARESUPPRESSION.AFTER": ["maxpool"],
    "MODEL.BLOCKS.STRUCTUREENHANCEMENT.AFTER": ["features.3", "features.11"],
    "MODEL.BLOCKS.CLASSATTENTION.AFTER": ["features.3", "features.11"],
    **{key: SETTINGS[key] for key in ("MODEL.BLOCKS.NAME", "MODEL.LOSSES.NAME")},
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dn348", {**SETTINGS, "DATASETS.NAMES": ["DN348"]}),
        ("dnwild", {**SETTINGS, "DATASETS.NAMES": ["DNWild"]}),
        ("regdb", {**SETTINGS, "DATASETS.NAMES": ["RegDB"]}),
        ("as-released", {**SETTINGS, **RELEASED}),
        ("dnmini", MINI),
    ],
)
def test_the_shipped_configs_have_the_figures_of_the_reference(name: str, expected: dict[str, Any]) -> None:
    assert differences(f"DNDM/{name}", expected) == {}


@pytest.mark.parametrize("name", ["dn348", "as-released", "dnmini"])
def test_the_shipped_networks_have_their_blocks(name: str) -> None:
    """A map has the width of its stage, the stem's weights one number more; blocks learn at the backbone's rate."""
    cfg = read(CONFIGS / f"{name}.yml")
    cfg.MODEL.BACKBONE.PRETRAIN = False
    model: Any = build_model(cfg)
    sizes = {
        key: tuple(v.shape)
        for key, v in model.state_dict().items()
        if key.endswith(("weigh.weight", "project.weight"))
    }
    mini = name == "dnmini"
    stem, stages, width = (24, (48, 96), 1024) if mini else (64, (256, 512, 1024, 2048), 2048)
    assert sorted(sizes.values()) == sorted([(1, stem + 1, 1, 1), *((width, stage) for stage in stages)])
    assert all(key.startswith("backbone.") for key in sizes)
