"""Mixed precision: bfloat16 and float16 train every loss head with finite losses close to full precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import SeenLosses

from dnreid_plugins.engine.step import SMALLEST_SCALE, NonFiniteLossError
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY

#: fast-reid's own losses, whose weight is the SCALE of fast-reid's sections.
FASTREIDS = ["TripletLoss", "CircleLoss", "Cosface"]
#: Heads that work on any encoder's features; CMA has no loss of its own but changes the memory.
HEADS = ["ClusterNCE", "DGM", "MAA", "MMD", "MarginMMD", "PGM", "CMA", "DomainConfusion", *FASTREIDS]
HEADS += ["CrossContrast", "NeighbourTargets", "RelaxedContrast"]
#: Heads of Bridging Day and Night, which need a CLIP encoder and prompts.
BRIDGING = ["ClusterNCE", "PrototypeClassifier", "ImageText", "CPML"]
#: Heads of systems that train on identities, one of which needs blocks in the encoder.
IDENTITIES = ["IdentityClassifier", "CentreTriplet", "HardTriplet", "WeightedTriplet", "GlareMask"]

#: Heads of several prototypes per cluster, a teacher, or clusters of both domains.
SEVERAL = [
    "HybridNCE",
    "CrossContrast",
    "FusedContrast",
    "DynamicContrast",
    "JointContrast",
    "SharedContrast",
]


def all_heads(cfg: CfgNode) -> CfgNode:
    cfg.MODEL.LOSSES.NAME = HEADS
    for name in set(HEADS) - set(FASTREIDS):
        cfg.MODEL.LOSSES[name.upper()].WEIGHT = ((1, 0.5),)
    cfg.DATASETS.TESTS = ()
    cfg.SOLVER.MAX_EPOCH = 1
    cfg.SOLVER.STEPS = []
    return cfg


def run(
    cfg: CfgNode, dtype: torch.dtype | None = None
) -> tuple[CrossDomainTrainer, list[dict[str, torch.Tensor]]]:
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    trainer.step_trainer.amp_dtype = dtype
    trainer.register_hooks([seen])
    trainer.train()
    return trainer, seen.losses


def test_the_list_of_heads_is_complete() -> None:
    assert {*HEADS, *BRIDGING, *IDENTITIES, *SEVERAL} == set(LOSS_HEAD_REGISTRY._obj_map)


def bridging(cfg: CfgNode) -> CfgNode:
    folder = cfg.OUTPUT_DIR
    cfg.merge_from_file(str(Path(__file__).resolve().parents[1] / "tiny_bridging.yml"))
    cfg.OUTPUT_DIR = folder  # the file's base has one of its own
    cfg.MODEL.LOSSES.NAME = BRIDGING
    cfg.PROMPT_STAGE.EPOCHS = 1
    cfg.DATASETS.TESTS = ()
    cfg.SOLVER.MAX_EPOCH = 1
    cfg.SOLVER.STEPS = []
    return cfg


def identities(cfg: CfgNode) -> CfgNode:
    cfg.MODEL.LOSSES.NAME = IDENTITIES
    cfg.LABELS.SOURCE, cfg.DATALOADER.PAIRED = "Identities", True
    cfg.MODEL.BLOCKS.NAME = ["GlareSuppression", "StructureEnhancement", "ClassAttention"]
    for name in cfg.MODEL.BLOCKS.NAME:
        cfg.MODEL.BLOCKS[name.upper()].AFTER = ["bn1"]
    cfg.DATASETS.TESTS = ()
    cfg.SOLVER.MAX_EPOCH = 1
    cfg.SOLVER.STEPS = []
    return cfg


def several(cfg: CfgNode) -> CfgNode:
    cfg.MODEL.LOSSES.NAME = SEVERAL
    for name in SEVERAL:
        cfg.MODEL.LOSSES[name.upper()].WEIGHT = ((1, 0.5),)
    cfg.MODEL.LOSSES.CROSSCONTRAST.BANK = cfg.MODEL.LOSSES.JOINTCONTRAST.BANK = "hybrid"
    cfg.MODEL.LOSSES.JOINTCONTRAST.STREAM, cfg.MODEL.LOSSES.SHAREDCONTRAST.CLUSTERS = "domains", "joint"
    cfg.MODEL.MEMORY.UPDATE, cfg.MODEL.MEMORY.EXTRA_BANKS = "mean", (("hard", "hardest_of_own"),)
    cfg.MODEL.TEACHER.ENABLED, cfg.LABELS.SOURCE = True, "Identities"
    cfg.DATASETS.TESTS = ()
    cfg.SOLVER.MAX_EPOCH = 1
    cfg.SOLVER.STEPS = []
    return cfg


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(
    ("configure", "heads"),
    [(all_heads, HEADS), (bridging, BRIDGING), (identities, IDENTITIES), (several, SEVERAL)],
)
def test_every_loss_head_trains_in_half_precision(
    tiny_cfg: CfgNode, configure: Callable[[CfgNode], CfgNode], heads: list[str], dtype: str
) -> None:
    folder = tiny_cfg.OUTPUT_DIR
    _, expected = run(configure(tiny_cfg))
    tiny_cfg.OUTPUT_DIR = f"{folder}-half"
    half, got = run(tiny_cfg, getattr(torch, dtype))
    assert len(got) == 4 and set(got[0]) == {f"loss_{name.lower()}" for name in heads if name != "CMA"}
    for losses in got:
        assert all(value.dtype == torch.float32 and bool(torch.isfinite(value)) for value in losses.values())
    # The first step starts from the same weights and labels.
    for name, value in got[0].items():
        assert float(value) == pytest.approx(float(expected[0][name]), rel=0.05, abs=0.02), name
    assert all(p.dtype == torch.float32 for p in half.bare_model.parameters())
    assert half.bare_model.last_outputs[0].dtype == getattr(torch, dtype)
    for domain in (0, 1):
        assert half.bare_model.parts.memory.rows(domain).dtype == torch.float32


@pytest.mark.parametrize(("dtype", "used"), [("bfloat16", torch.bfloat16), ("float16", None)])
def test_float16_is_left_off_on_a_cpu_with_a_word(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture, dtype: str, used: torch.dtype | None
) -> None:
    """fast-reid's stock configs ask for it; a resume sees the config as it was given."""
    tiny_cfg.SOLVER.AMP.ENABLED, tiny_cfg.SOLVER.AMP.DTYPE = True, dtype
    trainer = CrossDomainTrainer(tiny_cfg)
    assert trainer.step_trainer.amp_dtype is used
    assert ("SOLVER.AMP is ignored: float16 is slow on a CPU" in caplog.text) == (used is None)
    assert trainer.checkpoints.capture(0)["config"]["SOLVER.AMP.ENABLED"] == "True"


def test_a_loss_scale_that_vanishes_stops_the_run(tiny_cfg: CfgNode) -> None:
    """float16 on a GPU: a gradient that overflows at every scale is no reason to go on in silence."""

    class Scaler:
        def scale(self, loss: torch.Tensor) -> torch.Tensor:
            return loss

        def step(self, optimizer: Any) -> None: ...

        def update(self) -> None: ...

        def get_scale(self) -> float:
            return SMALLEST_SCALE / 2

        def state_dict(self) -> dict[str, Any]:
            return {}

    trainer = CrossDomainTrainer(tiny_cfg)
    trainer.step_trainer.grad_scaler = Scaler()  # type: ignore[assignment]
    with pytest.raises(NonFiniteLossError, match="loss scale fell to .* at iteration 0"):
        trainer.train()
