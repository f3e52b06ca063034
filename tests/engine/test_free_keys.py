"""A key is free on --resume if, and only if, a change of it in mid-run leaves every final bit as it was."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import StoppedError, same, stop_at, weights
from tiny_run import tiny_config

from dnreid_plugins.engine.identity import FREE_KEYS, FREE_NAME, config_items
from dnreid_plugins.engine.trainer import CrossDomainTrainer

#: Another value than that of the tests' config for every free key.
CHANGES: dict[str, Any] = {
    "OUTPUT_DIR": None,  # every resume of this file has another one
    "DATALOADER.NUM_WORKERS": 1,
    "DATALOADER.CACHE": "off",
    "DATASETS.DIGEST": "content",
    "REPORT.ENABLED": True,
    "AUDIT.PERIOD": 1,
    "SOLVER.CHECKPOINT_PERIOD": 0,
    "SOLVER.CHECKPOINT_KEEP": 5,
    "SOLVER.CHECKPOINT_MINUTES": 1e-9,
    "TEST.EVAL_PERIOD": 1,
    "TEST.EVAL_START": True,
    "TEST.KEEP_BEST": False,
    "TEST.METRIC": "euclidean",
    "TEST.WITHIN_DOMAIN": True,
    "TEST.FLIP.ENABLED": True,
    "TEST.ROC.ENABLED": True,
    "TEST.SET_ANYWAY": True,
    "TEST.AQE.ENABLED": True,
    "TEST.AQE.ALPHA": 2.0,
    "TEST.AQE.QE_K": 3,
    "TEST.AQE.QE_TIME": 2,
    "TEST.RERANK.ENABLED": True,
    "TEST.RERANK.K1": 6,
    "TEST.RERANK.K2": 3,
    "TEST.RERANK.LAMBDA": 0.5,
}
OPTIONS = [
    "SOLVER.MAX_EPOCH",
    3,
    "SOLVER.STEPS",
    [2],
    "TEST.EVAL_START",
    False,
    "DATALOADER.ITERS_PER_EPOCH",
    3,
]


@dataclass
class Undisturbed:
    """A run to its end, and the folder of the same run that was stopped inside its second epoch."""

    weights: dict[str, torch.Tensor]
    folder: Path


@pytest.fixture(scope="module")
def undisturbed(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Undisturbed]:
    folder = tmp_path_factory.mktemp("free")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(tiny_root))
        whole = CrossDomainTrainer(config(folder / "whole"))
        whole.resume_or_load(resume=False)
        whole.train()
        cut = CrossDomainTrainer(config(folder / "cut", "SOLVER.CHECKPOINT_MINUTES", 1e-9))
        cut.resume_or_load(resume=False)
        stop_at(cut, 4)
        with pytest.raises(StoppedError):
            cut.train()
        yield Undisturbed(weights(whole), folder / "cut")


def config(folder: Path, *opts: Any) -> CfgNode:
    return tiny_config([*OPTIONS, "OUTPUT_DIR", str(folder), *opts])


def test_every_free_key_is_changed_here(tmp_path: Path) -> None:
    items = config_items(config(tmp_path))
    free = {key for key in items if key in FREE_KEYS or key.endswith(FREE_NAME)} - {
        "PROMPT_STAGE.CHECKPOINT_PERIOD"
    }
    assert set(CHANGES) == free
    assert [key for key, value in CHANGES.items() if items[key] == repr(value)] == []


@pytest.mark.parametrize("key", CHANGES)
@pytest.mark.attack("config changed before --resume", "a free key, each in turn: every final bit is the same")
def test_a_free_key_leaves_every_final_bit(undisturbed: Undisturbed, tmp_path: Path, key: str) -> None:
    shutil.copytree(undisturbed.folder, tmp_path / "run")
    change = [] if CHANGES[key] is None else [key, CHANGES[key]]
    trainer = CrossDomainTrainer(config(tmp_path / "run", *change))
    trainer.resume_or_load(resume=True)
    assert trainer.iter == 4
    trainer.train()
    assert same(weights(trainer), undisturbed.weights)


@pytest.mark.parametrize(
    ("key", "value"), [("TEST.IMS_PER_BATCH", 7), ("TEST.PRECISE_BN.NUM_ITER", 7), ("CLUSTER.FLIP", False)]
)
@pytest.mark.attack("config changed before --resume", "a key of the extraction that moves bits: refused")
def test_a_key_that_moves_bits_is_refused(
    undisturbed: Undisturbed, tmp_path: Path, key: str, value: Any
) -> None:
    """Extraction for the labels reads batches of TEST.IMS_PER_BATCH, and sums depend on the size of a batch."""
    shutil.copytree(undisturbed.folder, tmp_path / "run")
    trainer = CrossDomainTrainer(config(tmp_path / "run", key, value))
    with pytest.raises(ValueError, match=f"The config changed since the checkpoint: {key} was"):
        trainer.resume_or_load(resume=True)


def test_why_the_batch_of_the_extraction_binds(undisturbed: Undisturbed, tmp_path: Path) -> None:
    other = CrossDomainTrainer(config(tmp_path, "TEST.IMS_PER_BATCH", 7))
    other.resume_or_load(resume=False)
    other.train()
    assert not same(weights(other), undisturbed.weights)
