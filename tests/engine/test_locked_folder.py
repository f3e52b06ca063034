"""The doors of a run take its folder, refuse a second one with a sentence and let it go at every end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from fastreid.config import CfgNode
from run_helpers import train

from dnreid_plugins.cli import main
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.run_lock import FILE, unlock_folder

TESTS = Path(__file__).parents[1]
TINY = ["--config-file", str(TESTS / "tiny.yml")]


@pytest.fixture
def running(tiny_cfg: CfgNode, tmp_path: Path) -> Iterator[Any]:
    """A long run in ``tmp_path/run`` that has saved its first checkpoint."""
    process = get_context("fork").Process(target=main, args=([*TINY, *long(tmp_path / "run")],), daemon=True)
    process.start()
    while not (tmp_path / "run" / "last_checkpoint").exists():
        assert process.is_alive()
        time.sleep(0.01)
    yield process
    process.kill()
    process.join()


def long(folder: Path) -> list[str]:
    opts = ["OUTPUT_DIR", str(folder), "SOLVER.MAX_EPOCH", "9999", "TEST.EVAL_START", "False"]
    return [*opts, "SOLVER.CHECKPOINT_MINUTES", "1e-9"]


@pytest.mark.attack("two runs in one folder", "a second run, a resume; resume after kill -9, after SIGTERM")
def test_a_second_run_is_a_sentence_and_a_killed_one_goes_on(
    tiny_cfg: CfgNode, running: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    before = (folder / "config.yaml").read_bytes()
    for resume in ([], ["--resume"]):
        with pytest.raises(SystemExit, match=f"error: {folder} is in use by process {running.pid} of"):
            main([*TINY, *resume, *long(folder)])
    assert (
        "in use" not in (folder / "log.txt").read_text() and (folder / "config.yaml").read_bytes() == before
    )
    assert not list(folder.glob("previous-*"))
    running.kill()
    running.join()
    assert (folder / FILE).is_file()
    tiny_cfg.merge_from_list(long(folder))
    again = CrossDomainTrainer(tiny_cfg)
    again.resume_or_load(resume=True)
    assert again.iter >= 1 and json.loads((folder / FILE).read_text())["pid"] == os.getpid()
    unlock_folder(str(folder))


def test_the_folder_is_let_go_at_every_end(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    tiny_cfg.TEST.EVAL_START = False
    train(tiny_cfg)
    lock = Path(tiny_cfg.OUTPUT_DIR) / FILE
    assert not lock.exists()
    opts = ["OUTPUT_DIR", tiny_cfg.OUTPUT_DIR, "TEST.EVAL_START", "False"]
    with pytest.raises(SystemExit, match="error: The config changed"):
        main([*TINY, "--resume", *opts, "SEED", "5"])
    assert not lock.exists()
    stopped = CrossDomainTrainer(tiny_cfg)
    stopped.resume_or_load(resume=False)
    stopped.run_step = lambda: os.kill(os.getpid(), signal.SIGTERM)  # type: ignore[method-assign]
    assert lock.exists()
    with pytest.raises(SystemExit):
        stopped.train()
    assert not lock.exists()
