"""NAIC20: the persons of a competition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastreid.engine
import pytest
import torch
from fastreid.config import CfgNode
from fastreid.data import build_reid_train_loader
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset
from fastreid.evaluation import ReidEvaluator


@DATASET_REGISTRY.register()
class MiniNAIC(ImageDataset):
    """Items are lists; cameras are words; an argument of its own."""

    def __init__(self, root: str = "datasets", rm_lt: bool = False, **kwargs: Any) -> None:
        paths = sorted((Path(root) / "dn348" / "day").glob("*/*.png"))
        train = [[str(p), f"naic_{p.parent.name}", "naic_0"] for p in paths[: 35 if rm_lt else 36]]
        query, gallery = ([[str(p), int(p.parent.name), cam] for p in paths[36:]] for cam in ("0", "1"))
        super().__init__(train, query, gallery, **kwargs)


def test_training_with_an_argument_for_the_data_set(
    cfg: CfgNode, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs: training on a data set with an additional argument and evaluation with cameras that are strings."""
    monkeypatch.setattr("fastreid.data.build._root", __import__("os").environ["FASTREID_DATASETS"])

    class Trainer(fastreid.engine.DefaultTrainer):
        @classmethod
        def build_train_loader(cls, cfg: CfgNode) -> Any:
            loader = build_reid_train_loader(cfg, rm_lt=True)
            assert len(loader.dataset) == 35
            return loader

    cfg.DATASETS.NAMES, cfg.DATASETS.TESTS = ("MiniNAIC",), ("MiniNAIC",)
    assert run(Trainer, cfg)["MiniNAIC"]["Q2G"]["Rank-1"] > 0


def test_its_configs_name_a_key_that_fastreid_dropped(cfg: CfgNode) -> None:
    """Dead upstream: its configs set `SOLVER.FREEZE_FC_ITERS`, which fast-reid 1.4.0 lacks; remove the line."""
    with pytest.raises((KeyError, AssertionError, ValueError), match="FREEZE_FC_ITERS"):
        cfg.merge_from_list(["SOLVER.FREEZE_FC_ITERS", 0])


def test_its_submission_uses_an_older_evaluator(cfg: CfgNode) -> None:
    """Dead upstream: `--commit` fills lists (`self.pids`) that fast-reid 1.4.0's `ReidEvaluator` no longer has."""

    class Submission(ReidEvaluator):
        def process(self, inputs: dict[str, Any], outputs: torch.Tensor) -> None:
            self.pids.extend(inputs["targets"])

    with pytest.raises(AttributeError, match="pids"):
        Submission(cfg, 1).process({"targets": [1]}, torch.ones(1, 2))
