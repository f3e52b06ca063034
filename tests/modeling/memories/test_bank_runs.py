"""A second bank in a run: a head that reads it, from the config alone, and a resume that has lost nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import SeenLosses, cut_and_resumed, same, train, weights
from torch import Tensor

from dnreid_plugins.engine.bad_batch import load_bad_batch, rebuild_model
from dnreid_plugins.engine.step import NonFiniteLossError
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.losses.contrast import cluster_nce
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY, LossHead
from dnreid_plugins.modeling.loss_heads.base import Schedule
from dnreid_plugins.modeling.parts import Parts
from dnreid_plugins.runtime.sections import Positive
from dnreid_plugins.runtime.weight_files import read_weight_file


@pytest.fixture
def hard_head(scratch: None) -> None:
    @LOSS_HEAD_REGISTRY.register()
    class HardNCE(LossHead):
        """Contrast with the rows that follow the hardest image of each cluster.

        Args:
            weight: Piecewise constant over the epochs.
            temperature: Of the softmax.
        """

        def __init__(self, *, weight: Schedule = ((1, 1.0),), temperature: Positive = 0.1) -> None:
            super().__init__(weight=weight)
            self.temperature = temperature

        def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
            total = batch.features.sum() * 0.0
            for domain in Domain:
                own, rows = batch.of(domain), parts.memory.rows(domain, "hard")
                total = total + cluster_nce(own.unit, own.targets, rows, temperature=self.temperature)
            return total


@pytest.fixture
def cfg(hard_head: None, tiny_cfg: CfgNode) -> CfgNode:
    tiny_cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "HardNCE")
    tiny_cfg.MODEL.MEMORY.UPDATE = "mean"
    tiny_cfg.MODEL.MEMORY.EXTRA_BANKS = (("hard", "hardest"),)
    tiny_cfg.SOLVER.CHECKPOINT_KEEP = 20
    tiny_cfg.TEST.EVAL_START = False
    return tiny_cfg


def test_a_head_of_a_test_trains_on_a_bank_of_the_config(cfg: CfgNode) -> None:
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    trainer.register_hooks([seen])
    trainer.train()
    memory = trainer.bare_model.parts.memory
    for domain in Domain:
        assert memory.rows(domain, "hard").shape == memory.rows(domain).shape
        assert not torch.equal(memory.rows(domain, "hard"), memory.rows(domain))
    first, second = seen.losses[:2]
    # Both banks start as the centroids; what else differs is the temperature.
    assert first["loss_hardnce"] != first["loss_clusternce"] and second["loss_hardnce"] > 0
    cfg.MODEL.MEMORY.EXTRA_BANKS = (("hard", "mean"),)
    cfg.OUTPUT_DIR += "-mean"
    assert not same(weights(train(cfg)), weights(trainer))


@pytest.mark.parametrize("iteration", [2, 4, 6])
def test_an_extra_bank_resumes(cfg: CfgNode, iteration: int) -> None:
    """Inside an epoch, where the bank has moved since the epoch began, and at a border."""
    whole = weights(train(cfg))
    assert {f"parts.memory.{bank}_{domain.word}" for bank in ("own", "hard") for domain in Domain} <= set(
        whole
    )
    cfg.OUTPUT_DIR += "-cut"
    assert same(weights(cut_and_resumed(cfg, iteration)), whole)
    if iteration % 4:
        state = read_weight_file(Path(cfg.OUTPUT_DIR) / f"model_iter{iteration:08d}.pth")
        begun = state["hooks"]["labels"]["epoch"]["clusters"]["night"]["centroids"]
        assert not torch.equal(state["model"]["parts.memory.hard_night"], begun)


def test_a_bad_batch_brings_the_bank_back(cfg: CfgNode) -> None:
    trainer = CrossDomainTrainer(cfg)
    head = trainer.bare_model.parts.losses["HardNCE"]
    forward = head.forward
    head.forward = lambda *args: forward(*args) * (float("nan") if trainer.iter == 6 else 1.0)
    with pytest.raises(NonFiniteLossError, match="loss_hardnce is nan at iteration 6"):
        trainer.train()
    model = rebuild_model(load_bad_batch([Path(cfg.OUTPUT_DIR) / "bad_batch.pt"]))
    rows = model.parts.memory.rows(Domain.DAY, "hard")  # type: ignore[union-attr]
    assert torch.equal(rows, trainer.bare_model.parts.memory.rows(Domain.DAY, "hard"))
    assert not torch.equal(rows, trainer.bare_model.parts.epoch.day.centroids)
