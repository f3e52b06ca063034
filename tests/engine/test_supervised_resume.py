"""A supervised run that is cut and resumed, and one with other workers, end with the bits of an undisturbed run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from fastreid.utils import comm
from run_helpers import same, train, weights
from tiny_run import tiny_config

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.launch import launch
from dnreid_plugins.runtime.signals import Stopped

SAMPLERS = ("TrainingSampler", "NaiveIdentitySampler", "BalancedIdentitySampler", "ImbalancedDatasetSampler")
AUGMENTED = ("FLIP", "REA", "RPT", "CJ")


def supervised(cfg: CfgNode, sampler: str, folder: Path, *, architecture: str = "Baseline") -> CfgNode:
    """Three epochs of four iterations with identity labels and augmentation of every kind of generator."""
    cfg = cfg.clone()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.HEADS.NAME = architecture, "EmbeddingHead"
    cfg.MODEL.LOSSES.NAME, cfg.MODEL.DUAL_STREAM.MODULES = ("CrossEntropyLoss", "TripletLoss"), ()
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.SOLVER.IMS_PER_BATCH = sampler, 8
    cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.CHECKPOINT_PERIOD = 3, 0
    for switch in AUGMENTED:
        cfg.INPUT[switch].ENABLED = True
    cfg.OUTPUT_DIR = str(folder)
    return cfg


class Reads:
    """Paths and pixels of every batch that a trainer steps on."""

    def __init__(self, trainer: CrossDomainTrainer) -> None:
        self.paths: dict[int, list[str]] = {}
        self.images: dict[int, torch.Tensor] = {}

        def note(module: Any, arguments: tuple[Any, ...]) -> None:
            batch = arguments[0]
            if module.training:
                self.paths[trainer.iter] = list(batch["img_paths"])
                self.images[trainer.iter] = batch["images"].clone()

        trainer.bare_model.register_forward_pre_hook(note)


def start(cfg: CfgNode, *, resume: bool = False) -> tuple[CrossDomainTrainer, Reads]:
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load(resume=resume)
    return trainer, Reads(trainer)


def cut(cfg: CfgNode, iteration: int) -> None:
    """Train until SIGTERM comes inside the step of ``iteration``."""
    trainer, _ = start(cfg)
    step = trainer.run_step

    def last_step() -> None:
        step()
        if trainer.iter == iteration:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.run_step = last_step
    with pytest.raises(Stopped):
        trainer.train()


@pytest.mark.parametrize("iteration", [5, 7, 8])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_cut_run_goes_on_bit_for_bit(
    tiny_cfg: CfgNode, tmp_path: Path, sampler: str, iteration: int
) -> None:
    whole, seen = start(supervised(tiny_cfg, sampler, tmp_path / "whole"))
    whole.train()
    assert sorted(seen.paths) == list(range(12))
    cfg = supervised(tiny_cfg, sampler, tmp_path / "cut")
    cut(cfg, iteration)
    resumed, again = start(cfg, resume=True)
    assert resumed.iter == iteration + 1
    resumed.train()
    assert again.paths == {i: seen.paths[i] for i in range(iteration + 1, 12)}
    assert all(torch.equal(images, seen.images[i]) for i, images in again.images.items())
    assert same(weights(whole), weights(resumed))


def test_a_cut_run_of_moco_goes_on_bit_for_bit(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    configs = [
        supervised(tiny_cfg, "NaiveIdentitySampler", tmp_path / name, architecture="MoCo")
        for name in ("whole", "cut")
    ]
    whole = train(configs[0])
    cut(configs[1], 6)
    assert same(weights(whole), weights(train(configs[1], resume=True)))


def test_the_last_of_many_checkpoints_of_a_killed_run(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    """The run is gone after iteration 9, without a word; its newest checkpoint is one of many."""
    cfg = supervised(tiny_cfg, "NaiveIdentitySampler", tmp_path)
    cfg.SOLVER.CHECKPOINT_MINUTES, cfg.SOLVER.CHECKPOINT_KEEP = 1e-9, 20
    whole = weights(train(cfg))
    for name in ("model_final.pth", "last_checkpoint", "model_iter00000010.pth", "model_iter00000011.pth"):
        (tmp_path / name).unlink()
    resumed, _ = start(cfg, resume=True)
    assert resumed.iter == 9
    resumed.train()
    assert same(whole, weights(resumed))


@pytest.mark.parametrize("sampler", ["TrainingSampler", "NaiveIdentitySampler"])
def test_the_number_of_workers_changes_no_bit_not_even_at_a_resume(
    tiny_cfg: CfgNode, tmp_path: Path, sampler: str
) -> None:
    alone = weights(train(supervised(tiny_cfg, sampler, tmp_path / "none")))
    cfg = supervised(tiny_cfg, sampler, tmp_path / "two")
    cfg.DATALOADER.NUM_WORKERS = 2
    assert same(alone, weights(train(cfg)))
    cfg.OUTPUT_DIR = str(tmp_path / "both")
    cut(cfg, 6)
    cfg.DATALOADER.NUM_WORKERS = 0
    assert same(alone, weights(train(cfg, resume=True)))


def test_another_seed_is_another_run(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    one, first = start(supervised(tiny_cfg, "TrainingSampler", tmp_path / "0"))
    one.train()
    cfg = supervised(tiny_cfg, "TrainingSampler", tmp_path / "1")
    cfg.SEED = 1
    two, second = start(cfg)
    two.train()
    assert first.paths != second.paths


def one_of_two(folder: str) -> None:
    """In each of two processes: an undisturbed run, a cut one and its resume; what differs goes to a file."""
    sampler = "ImbalancedDatasetSampler"  # the one that draws from torch's generator, too
    base = tiny_config(["SOLVER.BASE_LR", 0.001])
    whole, seen = start(supervised(base, sampler, Path(folder) / "whole"))
    whole.train()
    cfg = supervised(base, sampler, Path(folder) / "cut")
    cut(cfg, 6)
    resumed, again = start(cfg, resume=True)
    resumed.train()
    torch.save(
        {
            "seen": seen.paths,
            "same paths": again.paths == {i: seen.paths[i] for i in range(7, 12)},
            "same weights": same(weights(whole), weights(resumed)),
        },
        Path(folder) / f"{comm.get_rank()}.pth",
    )


def test_each_of_two_processes_goes_on_with_its_own_batches(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    launch(one_of_two, 2, args=(str(tmp_path),))
    ranks = [torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in (0, 1)]
    assert all(one["same paths"] and one["same weights"] for one in ranks)
    assert ranks[0]["seen"] != ranks[1]["seen"] and len(ranks[0]["seen"][0]) == 4
