"""PCLHD: the figures of its configs, and its parts, streams and teacher together in a run that is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from config_values import differences
from fastreid.config import CfgNode
from run_helpers import SeenLosses, cut_and_resumed, miniature, same, train, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer

LOSSES = ("HybridNCE", "CrossContrast", "DynamicContrast", "JointContrast")
#: Columns: data set, iterations per epoch, DBSCAN's radius, rounds of matching.
SETS = {
    "dn348": ("DN348", 200, 0.6, 3),
    "dnwild": ("DNWild", 400, 0.6, 3),
    "regdb": ("RegDB", 100, 0.3, 2),
    "dnmini": ("DNMini", 30, 0.5, 3),
    "as-released": ("DN348", 200, 0.6, 3),
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_the_configs_hold_the_figures_of_the_released_code(name: str) -> None:
    data, iterations, eps, rounds = SETS[name]
    mini = name == "dnmini"
    second = 6 if mini else 51
    expected: dict[str, Any] = {
        "DATASETS.NAMES": (data,),
        "DATALOADER.ITERS_PER_EPOCH": iterations,
        "DATALOADER.STREAMS": ("domains", "joint"),
        "CLUSTER.EPS": eps,
        "SOLVER.STAGES": (second,),
        "SOLVER.MAX_EPOCH": 2 * second - 2,
        "LABELS.REFINERS": ("JointClusters",),
        "LABELS.JOINTCLUSTERS.START": second,
        "LABELS.JOINTCLUSTERS.K1": 16 if mini else 40,
        "LABELS.JOINTCLUSTERS.K2": 12 if mini else 32,
        "LABELS.JOINTCLUSTERS.EPS": eps,
        "LABELS.JOINTCLUSTERS.BALANCED": True,
        "MODEL.TEACHER.ENABLED": True,
        "MODEL.TEACHER.EVALUATE": True,
        "MODEL.TEACHER.DECAY": 0.99 if mini else 0.999,
        "MODEL.MEMORY.MOMENTUM": 0.1,
        "MODEL.MEMORY.UPDATE": "mean",
        "MODEL.MEMORY.EXTRA_BANKS": (("hard", "hardest_of_own"),),
        "MODEL.MATCHERS.PROGRESSIVEMATCHER.MAX_ROUNDS": rounds,
        "MODEL.LOSSES.NAME": LOSSES,
        "MODEL.LOSSES.HYBRIDNCE.WEIGHT": ((1, 1.0),),
        "MODEL.LOSSES.CROSSCONTRAST.WEIGHT": ((second, 0.25),),
        "MODEL.LOSSES.CROSSCONTRAST.MATCHER": "ProgressiveMatcher",
        "MODEL.LOSSES.CROSSCONTRAST.DIRECTIONS": "alternate",
        "MODEL.LOSSES.CROSSCONTRAST.BANK": "hybrid",
        "MODEL.LOSSES.DYNAMICCONTRAST.WEIGHT": ((second, 1.0),),
        "MODEL.LOSSES.DYNAMICCONTRAST.ROWS": 16,
        "MODEL.LOSSES.DYNAMICCONTRAST.AS_RELEASED": name == "as-released",
        "MODEL.LOSSES.JOINTCONTRAST.WEIGHT": ((second, 1.0),),
        "MODEL.LOSSES.JOINTCONTRAST.BANK": "hybrid",
        "MODEL.LOSSES.JOINTCONTRAST.STREAM": "joint",
    }
    if not mini:
        expected |= {"SOLVER.IMS_PER_BATCH": 256, "DATALOADER.NUM_INSTANCE": 16}
        expected |= {"INPUT.VIEWS.DAY": ((), ("exchange",))}
    assert differences(f"PCLHD/{name}", expected) == {}


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    cfg = miniature(tiny_cfg, "PCLHD/configs/dnmini")
    cfg.INPUT.VIEWS.DAY = ((), ("exchange",))
    # The two domains of these pictures lie far apart; so some clusters hold images of both.
    joint = cfg.LABELS.JOINTCLUSTERS
    joint.K1, joint.K2, joint.EPS, joint.MIN_SAMPLES = 8, 10, 0.7, 2
    return cfg


def test_a_run_resumes_inside_an_epoch_bit_exactly(cfg: CfgNode) -> None:
    seen, whole = SeenLosses(), CrossDomainTrainer(cfg)
    batches: list[Any] = []
    after_step = whole.parts.after_step
    whole.parts.after_step = lambda batch: (batches.append(batch), after_step(batch))  # type: ignore[method-assign]
    whole.register_hooks([seen])
    whole.resume_or_load()
    whole.train()
    own = {"loss_hybridnce", "loss_crosscontrast", "loss_dynamiccontrast"}
    assert [set(one) for one in seen.losses] == [{"loss_hybridnce"}] * 4 + [own, {"loss_jointcontrast"}] * 4
    assert all(0 < float(loss) < 50 for one in seen.losses for loss in one.values())
    # 8 images of each domain; a day image comes twice, under the same label and place.
    for batch in batches:
        if batch.stream == "domains":
            assert batch.views.tolist() == [0] * 8 + [1] * 8 + [0] * 8
            assert batch.indices[:8].tolist() == batch.indices[8:16].tolist()
            assert not torch.equal(batch.features[:8], batch.features[8:16])
    memory = whole.parts.memory
    for name in ("day", "night", "joint"):
        assert not torch.equal(memory.rows(name), memory.rows(name, "hard"))

    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, 6)
    assert same(weights(resumed), weights(whole))
    assert resumed._last_eval_results == whole._last_eval_results


def test_every_loss_has_gradient_but_the_released_constant(cfg: CfgNode) -> None:
    cfg.TEST.EVAL_START = False
    for as_released in (False, True):
        cfg.MODEL.LOSSES.DYNAMICCONTRAST.AS_RELEASED = as_released
        cfg.OUTPUT_DIR += "x"
        trainer, silent = CrossDomainTrainer(cfg), set()
        losses_ready = trainer.losses_ready

        def ready(
            losses: dict[str, torch.Tensor],
            trainer: Any = trainer,
            silent: Any = silent,
            go: Any = losses_ready,
        ) -> None:
            outputs = trainer.bare_model.last_outputs
            for name, loss in losses.items():
                gradients = torch.autograd.grad(loss, outputs, retain_graph=True, allow_unused=True)
                if sum(float(one.norm()) for one in gradients if one is not None) == 0:
                    silent.add(name)
            go(losses)

        trainer.losses_ready = ready  # type: ignore[method-assign]
        trainer.train()
        assert silent == ({"loss_dynamiccontrast"} if as_released else set())


def test_the_teacher_is_evaluated(cfg: CfgNode) -> None:
    cfg.MODEL.TEACHER.DECAY = 1.0  # it never learns
    train(cfg)
    results = json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())
    assert results["DN348"] == results["start"]["DN348"]
