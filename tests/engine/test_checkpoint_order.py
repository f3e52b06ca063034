"""Which checkpoints stay: by iteration, whatever the clock says, and no file of anybody else."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import StoppedError, same, stop_at, train, weights
from torch import nn

from dnreid_plugins.engine.checkpoint_files import AtomicCheckpointer
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime import files
from dnreid_plugins.runtime.run_folder import set_aside

FOREIGN = ["model_mine_keep.pth", "model_r50_pretrained.pth", ".download.part", ".my.download.part"]


def age(folder: Path, seconds: float) -> None:
    """The clock is set back: all files of the folder are from the future."""
    for path in folder.iterdir():
        os.utime(path, (time.time() + seconds,) * 2)


@pytest.mark.attack("clock", "set back by an hour between a stop and the resume")
def test_a_clock_that_was_set_back_costs_no_checkpoint(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    tiny_cfg.SOLVER.CHECKPOINT_MINUTES = 1e-9
    folder = Path(tiny_cfg.OUTPUT_DIR)
    cut = CrossDomainTrainer(tiny_cfg)
    cut.resume_or_load(resume=False)
    stop_at(cut, 3)
    with pytest.raises(StoppedError):
        cut.train()
    age(folder, 3600)
    again = CrossDomainTrainer(tiny_cfg)
    again.resume_or_load(resume=True)
    stop_at(again, 7)
    with pytest.raises(StoppedError):
        again.train()
    assert sorted(path.name for path in folder.glob("*.pth")) == [
        "model_iter00000006.pth",
        "model_iter00000007.pth",
    ]
    assert (folder / "last_checkpoint").read_text() == "model_iter00000007.pth"
    (folder / "last_checkpoint").unlink()  # a resume finds the newest without it, too
    last = CrossDomainTrainer(tiny_cfg)
    last.resume_or_load(resume=True)
    assert last.iter == 7


def test_the_border_of_an_epoch_comes_after_the_iterations_in_it(tmp_path: Path) -> None:
    checkpointer = AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path), keep=9, iters_per_epoch=4)
    names = ["model_0002", "model_iter00000003", "model_iter00000005", "model_0001", "model_iter00000010"]
    for name in names:
        checkpointer.save(name)
    found = [path.stem for path in checkpointer.periodic()]
    assert found == [names[4], names[0], names[2], names[3], names[1]]


@pytest.mark.attack("clock", "older files of the folder have higher iterations")
def test_the_file_just_written_stays(tmp_path: Path) -> None:
    checkpointer = AtomicCheckpointer(nn.Linear(1, 1), str(tmp_path), keep=1)
    for name in ("model_0009", "model_0001"):
        checkpointer.save(name)
        assert [path.stem for path in checkpointer.periodic()] == [name]


@pytest.mark.attack("files of others", "in OUTPUT_DIR, through three runs")
def test_files_that_we_did_not_write_stay_where_they_are(tiny_cfg: CfgNode) -> None:
    folder = Path(tiny_cfg.OUTPUT_DIR)
    folder.mkdir()
    for name in FOREIGN:
        (folder / name).write_text(name)
    (folder / ".model_0001.pth.0123456789abcdef.part").touch()
    tiny_cfg.SOLVER.CHECKPOINT_MINUTES, tiny_cfg.TEST.EVAL_START = 1e-9, False
    train(tiny_cfg)
    assert not (folder / ".model_0001.pth.0123456789abcdef.part").exists()
    train(tiny_cfg, resume=True)
    set_aside(folder)
    assert [(folder / name).read_text() for name in FOREIGN] == FOREIGN


@pytest.mark.attack("power cut", "rows of the logs that a resume keeps are forced to the disk first")
def test_logs_reach_the_disk_before_the_checkpoint_that_follows_them(
    tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_cfg.TEST.EVAL_START = False
    forced: list[str] = []
    fsync: Any = os.fsync

    def spy(descriptor: int) -> None:
        forced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", spy)
    train(tiny_cfg)
    place = forced.index(next(name for name in forced if name.startswith(".model_final.pth")))
    assert {"metrics.json", "health.jsonl"} <= set(forced[:place])
    assert forced[place - 2 : place] == ["metrics.json", "health.jsonl"]


def test_a_final_file_is_where_a_finished_run_goes_on(tiny_cfg: CfgNode) -> None:
    whole = train(tiny_cfg)
    age(Path(tiny_cfg.OUTPUT_DIR), -3600)
    (Path(tiny_cfg.OUTPUT_DIR) / "last_checkpoint").unlink()
    again = CrossDomainTrainer(tiny_cfg)
    again.resume_or_load(resume=True)
    assert again.iter == whole.max_iter and same(weights(whole), weights(again))
    assert torch.isfinite(next(again.bare_model.parameters())).all()
