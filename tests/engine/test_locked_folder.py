"""The doors of a run take its folder, refuse a second one with a sentence and let it go at every end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gloo_jobs
import pytest
from fastreid.config import CfgNode
from run_helpers import train

from dnreid_plugins.cli import main
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.run_lock import FILE, FolderInUseError, lock_folder, unlock_folder

TESTS = Path(__file__).parents[1]
TINY = ["--config-file", str(TESTS / "tiny.yml")]
RUN = "import sys; sys.path.append(sys.argv.pop(1)); import conftest; from dnreid_plugins.cli import main; main()"


@pytest.fixture
def running(tiny_root: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A long run in ``tmp_path/run`` that has saved its first checkpoint."""
    opts = ["OUTPUT_DIR", str(tmp_path / "run"), "SOLVER.MAX_EPOCH", "9999", "TEST.EVAL_START", "False"]
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(TESTS), *TINY, *opts],
        env={**os.environ, "FASTREID_DATASETS": str(tiny_root), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    while "Saved" not in process.stdout.readline():
        assert process.poll() is None
    yield process
    process.kill()
    process.wait()


@pytest.mark.slow
@pytest.mark.attack("two runs in one folder", "a second run, a resume; resume after kill -9, after SIGTERM")
def test_a_second_run_is_a_sentence_and_a_killed_one_goes_on(
    tiny_cfg: CfgNode, running: subprocess.Popen[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    opts = ["OUTPUT_DIR", str(folder), "SOLVER.MAX_EPOCH", "9999", "TEST.EVAL_START", "False"]
    before = (folder / "config.yaml").read_bytes()
    for resume in ([], ["--resume"]):
        with pytest.raises(SystemExit, match=f"error: {folder} is in use by process {running.pid} of"):
            main([*TINY, *resume, *opts])
    assert (
        "in use" not in (folder / "log.txt").read_text() and (folder / "config.yaml").read_bytes() == before
    )
    assert not list(folder.glob("previous-*"))
    running.kill()
    running.wait()
    assert (folder / FILE).is_file()
    tiny_cfg.merge_from_list([*opts, "SOLVER.MAX_EPOCH", 9999])
    again = CrossDomainTrainer(tiny_cfg)
    again.resume_or_load(resume=True)
    assert again.iter >= 4 and json.loads((folder / FILE).read_text())["pid"] == os.getpid()
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


@pytest.mark.slow
@pytest.mark.attack("two runs in one folder", "two processes, where another run works: all get the sentence")
def test_all_processes_of_a_job_are_refused(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pool = gloo_jobs.Pool(tmp_path, size=2)
    try:
        lock_folder(str(tmp_path / "run"))
        for answer in pool.run(2, "train", [*gloo_jobs.OPTIONS, "OUTPUT_DIR", str(tmp_path / "run")]):
            assert isinstance(answer, FolderInUseError)
    finally:
        unlock_folder(str(tmp_path / "run"))
        pool.close()
