"""RPNR: the figures of its configs, and its parts together in a run that is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from config_values import differences
from fastreid.config import CfgNode
from run_helpers import SeenLosses, cut_and_resumed, miniature, same, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.labels import DensityRelabel
from dnreid_plugins.labels.build import build_labels

LOSSES = ("HybridNCE", "CrossContrast", "FusedContrast", "RelaxedContrast")
#: Columns: data set, iterations per epoch, DBSCAN's radius, densest images.
SETS = {
    "dn348": ("DN348", 200, 0.6, 20),
    "dnwild": ("DNWild", 400, 0.6, 20),
    "regdb": ("RegDB", 100, 0.3, 5),
    "dnmini": ("DNMini", 30, 0.5, 5),
    "as-released": ("DN348", 200, 0.6, 20),
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_the_configs_hold_the_figures_of_the_released_code(name: str) -> None:
    data, iterations, eps, top = SETS[name]
    second, released = 6 if name == "dnmini" else 51, name == "as-released"
    expected: dict[str, Any] = {
        "DATASETS.NAMES": (data,),
        "DATALOADER.ITERS_PER_EPOCH": iterations,
        "CLUSTER.EPS": eps,
        "SOLVER.STAGES": (second,),
        "SOLVER.MAX_EPOCH": 2 * second - 2,
        "LABELS.REFINERS": ("DensityRelabel",),
        "LABELS.DENSITYRELABEL.START": second,
        "LABELS.DENSITYRELABEL.TOP": top,
        "LABELS.DENSITYRELABEL.THRESHOLD": 0.5,
        "LABELS.DENSITYRELABEL.AS_RELEASED": released,
        "MODEL.MEMORY.MOMENTUM": 0.1,
        "MODEL.MEMORY.UPDATE": "mean",
        "MODEL.MEMORY.EXTRA_BANKS": (("hard", "hardest_of_own"),),
        "MODEL.MATCHERS.SINKHORNMATCHER.REG": 5.0,
        "MODEL.LOSSES.NAME": LOSSES,
        "MODEL.LOSSES.HYBRIDNCE.WEIGHT": ((1, 1.0),),
        "MODEL.LOSSES.HYBRIDNCE.FLOOR": 0.2,
        "MODEL.LOSSES.HYBRIDNCE.TEMPERATURE": 0.05,
        "MODEL.LOSSES.CROSSCONTRAST.WEIGHT": ((second, 0.25),),
        "MODEL.LOSSES.CROSSCONTRAST.MATCHER": "SinkhornMatcher",
        "MODEL.LOSSES.CROSSCONTRAST.DIRECTIONS": "alternate",
        "MODEL.LOSSES.CROSSCONTRAST.BANK": "hybrid",
        "MODEL.LOSSES.FUSEDCONTRAST.WEIGHT": ((second, 0.5),),
        "MODEL.LOSSES.RELAXEDCONTRAST.WEIGHT": ((second, 10.0),),
        "MODEL.LOSSES.RELAXEDCONTRAST.AS_RELEASED": released,
    }
    if name != "dnmini":
        expected |= {"SOLVER.IMS_PER_BATCH": 256, "DATALOADER.NUM_INSTANCE": 16}
        expected |= {"INPUT.VIEWS.DAY": ((), ("exchange",))}
    assert differences(f"RPNR/{name}", expected) == {}


@pytest.mark.parametrize("iteration", [5, 10])
def test_a_run_resumes_inside_an_epoch_bit_exactly(tiny_cfg: CfgNode, iteration: int) -> None:
    """Of stage 2 in an even epoch, where day images are contrasted, and in an odd one."""
    cfg = miniature(tiny_cfg, "RPNR/configs/dnmini")
    cfg.SOLVER.MAX_EPOCH, cfg.TEST.EVAL_START = 3, False
    (one,) = build_labels(cfg).refiners
    assert isinstance(one, DensityRelabel) and one.start == 2
    seen, whole = SeenLosses(), CrossDomainTrainer(cfg)
    whole.register_hooks([seen])
    whole.resume_or_load()
    whole.train()
    names = {f"loss_{name.lower()}" for name in LOSSES}
    assert [set(one) for one in seen.losses] == [{"loss_hybridnce"}] * 4 + [names] * 8
    assert all(0 < float(loss) < 50 for one in seen.losses for loss in one.values())
    assert not torch.equal(whole.parts.memory.rows("day"), whole.parts.memory.rows("day", "hard"))
    matching = whole.parts.matching("CrossContrast")
    assert matching is not None and int(matching.day_to_night.min()) >= 0
    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, iteration)
    assert same(weights(resumed), weights(whole))
    assert resumed._last_eval_results == whole._last_eval_results


def test_every_loss_has_gradient_in_either_kind_of_epoch(tiny_cfg: CfgNode) -> None:
    cfg = miniature(tiny_cfg, "RPNR/configs/dnmini")
    cfg.SOLVER.MAX_EPOCH, cfg.TEST.EVAL_START = 3, False
    trainer, epochs = CrossDomainTrainer(cfg), []
    losses_ready = trainer.losses_ready

    def ready(losses: dict[str, torch.Tensor]) -> None:
        outputs = trainer.bare_model.last_outputs
        for loss in losses.values():
            gradients = torch.autograd.grad(loss, outputs, retain_graph=True, allow_unused=True)
            assert sum(float(one.norm()) for one in gradients if one is not None) > 0
        epochs.append((trainer.epoch + 1, len(losses)))
        losses_ready(losses)

    trainer.losses_ready = ready  # type: ignore[method-assign]
    trainer.train()
    assert epochs == [(1, 1)] * 4 + [(2, 4)] * 4 + [(3, 4)] * 4
