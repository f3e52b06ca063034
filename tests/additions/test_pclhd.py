"""PCLHD as an addition: a hybrid memory, its loss, two views of a day image and a teacher that is evaluated."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from head_world import world
from run_helpers import SeenLosses, cut_and_resumed, same, train, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.runtime.config_files import ConfigError

ADDITIONS = ("pclhd",)
HYBRID = (("hard", "hardest_of_own"),)


@pytest.mark.parametrize(
    ("mean", "expected"), [((2.0, 0.0), 0.15663), ((1.0, 0.0), 0.21326)], ids=["below the floor", "above"]
)
def test_the_loss_of_two_logits(
    addition: dict[str, ModuleType], mean: tuple[float, float], expected: float
) -> None:
    """The released loss by hand: one day image of cluster 0, logits ``mean`` and (1, 0); no night image."""
    here = world([0, 1], [])
    head = addition["hybrid_contrast"].HybridContrast(temperature=1.0)
    parts = here.parts(head, memory=ClusterMemory(extra_banks=HYBRID))
    image = here.batch.where(here.batch.targets == 0)
    for bank, logits in (("own", mean), ("hard", (1.0, 0.0))):
        parts.memory.set_rows(Domain.DAY, torch.tensor(logits)[:, None] * image.unit, bank)
    loss = head(image, parts)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert float(torch.autograd.grad(loss, here.batch.features)[0].norm()) > 0


def test_a_run_resumes_inside_an_epoch_bit_exactly(cfg: CfgNode) -> None:
    seen, whole = SeenLosses(), CrossDomainTrainer(cfg)
    batches: list[Any] = []
    after_step = whole.parts.after_step
    whole.parts.after_step = lambda batch: (batches.append(batch), after_step(batch))  # type: ignore[method-assign]
    whole.register_hooks([seen])
    whole.resume_or_load()
    whole.train()
    assert [sorted(one) for one in seen.losses] == [["loss_hybridcontrast"]] * 4 + [
        ["loss_hybridcontrast", "loss_pgm"]
    ] * 4
    assert all(0 < float(loss) < 20 for one in seen.losses for loss in one.values())
    # 8 images of each domain; a day image comes twice, under the same label and place.
    for batch in batches:
        assert batch.views.tolist() == [0] * 8 + [1] * 8 + [0] * 8
        assert batch.indices[:8].tolist() == batch.indices[8:16].tolist()
        assert not torch.equal(batch.features[:8], batch.features[8:16])
    memory = whole.parts.memory
    assert not torch.equal(memory.rows("day"), memory.rows("day", "hard"))

    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, 6)
    assert same(weights(resumed), weights(whole))
    assert resumed._last_eval_results == whole._last_eval_results


def test_the_teacher_is_evaluated(cfg: CfgNode) -> None:
    cfg.MODEL.TEACHER.DECAY = 1.0  # it never learns
    train(cfg)
    results = json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())
    assert results["DN348"] == results["start"]["DN348"]


def test_without_the_hard_bank_it_is_refused(cfg: CfgNode) -> None:
    cfg.MODEL.MEMORY.EXTRA_BANKS = ()
    with pytest.raises(ConfigError, match="HybridContrast needs a bank called 'hard'; set MODEL.MEMORY"):
        CrossDomainTrainer(cfg)
