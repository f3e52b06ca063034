"""The faults that a run survives, on a run with a stage before its epochs: both stages of Bridging Day and Night."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import gloo_jobs
import pytest
import torch
from fastreid.config import CfgNode
from forked import run_forked
from test_ends import says
from test_equal_processes import both_say, one_more
from test_evaluation_files import contents, evaluations
from test_odd_machines import CHECKPOINTS, same_run
from test_surroundings import trained

from dnreid_plugins.cli import main
from dnreid_plugins.engine.stages import base as stages
from dnreid_plugins.runtime import files

AREA = "a run with a stage"
STAGED = ["--config-file", str(Path(__file__).parents[1] / "tiny_bridging.yml")]
WORDS = [*STAGED, *CHECKPOINTS, "SOLVER.MAX_EPOCH", "2"]


@pytest.fixture(scope="module")
def whole(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("staged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(tiny_root))
        assert trained(run_forked([*WORDS, "OUTPUT_DIR", str(folder / "out")], folder), folder / "out")
    return folder / "out"


def same(whole: Path, out: Path) -> bool:
    prompts = [torch.load(one / "stage1.pth", weights_only=True)["stage"]["prompts"] for one in (whole, out)]
    equal = all(torch.equal(value, prompts[1][key]) for key, value in prompts[0].items())
    return equal and same_run(whole, out) and not list(out.glob(".*.part"))


def killed_at(number: int, place: str) -> Callable[[], None]:
    """The process kills itself at the ``number``-th writing of the stage's file."""

    def kill(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def before() -> None:
        inner, calls = stages.write_atomically, iter(range(1, 99))

        def traced(path: Any, write: Callable[[Any], Any]) -> None:
            hit = next(calls) == number
            if hit and place == "in the bytes":
                inner(path, lambda file: (write(file), file.truncate(5000), file.flush(), kill()))
            if hit and place == "before the renaming":
                files.os.replace = kill  # type: ignore[assignment]
            inner(path, write)
            if hit:
                kill()

        stages.write_atomically = traced

    return before


@pytest.mark.stress
@pytest.mark.attack(AREA, "kill -9 while its file is written: exact resume")
@pytest.mark.parametrize("place", ["in the bytes", "before the renaming", "after it"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_kill_in_the_stage_s_file(
    tiny_bridging_cfg: CfgNode, whole: Path, tmp_path: Path, number: int, place: str
) -> None:
    out = tmp_path / "out"
    words = [*WORDS, "OUTPUT_DIR", str(out)]
    assert run_forked(words, tmp_path, before=killed_at(number, place)).code == -signal.SIGKILL
    assert (out / "stage1.pth").exists() == (number > 1 or place == "after it")
    assert trained(run_forked(["--resume", *words], tmp_path), out)
    assert same(whole, out)


@pytest.mark.stress
@pytest.mark.attack(AREA, "the clock is set back by an hour, or all files are of 1970: exact resume")
@pytest.mark.parametrize("when", [3600.0, -2e9])
def test_a_clock_that_was_set_back(
    tiny_bridging_cfg: CfgNode, whole: Path, tmp_path: Path, when: float
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    later = sorted(out.glob("model_iter*.pth"))[2:]
    for path in (*later, *out.glob("model_final.pth"), *out.glob("model_0001.pth"), out / "last_checkpoint"):
        path.unlink()
    for path in out.iterdir():
        os.utime(path, (max(time.time() + when, 0.0),) * 2)
    assert trained(run_forked(["--resume", *WORDS, "OUTPUT_DIR", str(out)], tmp_path), out)
    assert same(whole, out)


@pytest.mark.attack(AREA, "its file is cut, foreign or gone: a sentence")
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-900]), "stage1.pth is damaged"),
        (
            lambda path: shutil.copy(path.with_name("model_0001.pth"), path),
            "does not hold a stage LearnPrompts",
        ),
        (lambda path: path.unlink(), "stage1.pth of the stage before it is missing; put it back"),
    ],
)
def test_a_file_that_is_none(
    tiny_bridging_cfg: CfgNode, whole: Path, tmp_path: Path, damage: Callable[[Path], Any], sentence: str
) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    (out / "model_final.pth").unlink()
    before = contents(out)
    damage(out / "stage1.pth")
    ended = run_forked(["--resume", *WORDS, "OUTPUT_DIR", str(out)], tmp_path)
    says(ended, 1, sentence)
    lost = [k for k, v in contents(out).items() if k.endswith((".pth", ".json")) and v != before[k]]
    assert set(lost) <= {"stage1.pth", "metrics.json", "environment.json"}


@pytest.mark.attack(AREA, "a second run and a resume while it is in the stage: refused")
def test_a_second_run_in_the_stage(tiny_bridging_cfg: CfgNode, tmp_path: Path) -> None:
    words = [*STAGED, "OUTPUT_DIR", str(tmp_path), "PROMPT_STAGE.EPOCHS", "9999", "TEST.EVAL_START", "False"]
    process = get_context("fork").Process(target=main, args=(words,), daemon=True)
    process.start()
    try:
        while not (tmp_path / "stage1.pth").exists():
            assert process.is_alive()
            time.sleep(0.01)
        for resume in ([], ["--resume"]):
            with pytest.raises(SystemExit, match=f"error: {tmp_path} is in use by process {process.pid} of"):
                main([*resume, *words])
    finally:
        process.kill()
        process.join()
    assert not list(tmp_path.glob("previous-*"))


@pytest.mark.attack(AREA, "an evaluation in its folder: no file of the run changes")
def test_an_evaluation_in_its_folder(tiny_bridging_cfg: CfgNode, whole: Path, tmp_path: Path) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    weights = ["MODEL.WEIGHTS", str(out / "model_0001.pth"), "OUTPUT_DIR", str(out), "SEED", "9"]
    ended = run_forked(["--eval-only", *STAGED, *weights], tmp_path)
    assert ended.code == 0, ended.said[-3000:]
    assert contents(out) == contents(whole) and len(evaluations(out)) == 1
    ended = run_forked(["--eval-only", *STAGED, *weights, "MODEL.PIXEL_MEAN", "[0, 0, 0]"], tmp_path)
    says(ended, 1, "comes from a run with another setting (MODEL.PIXEL_MEAN")


@pytest.mark.stress
@pytest.mark.attack(AREA, "one of two processes has other images or another config: all end before the stage")
def test_processes_that_differ(tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(tiny_root, tmp_path / "data")
    one_more(tmp_path / "data")
    options = ["tiny_bridging.yml", *gloo_jobs.OPTIONS[:6], "OUTPUT_DIR", str(tmp_path / "out")]
    pool = gloo_jobs.Pool(tmp_path, size=2)
    try:
        answers = pool.run(2, "train_apart", options, [], str(tmp_path / "data"))
        both_say(answers, "different training images: process 1 .*day/00001/0015.png is new")
        answers = pool.run(2, "train_apart", options, ["PROMPT_STAGE.EPOCHS", 2], "")
        both_say(answers, "were started differently: process 1 .*PROMPT_STAGE.EPOCHS is 2 there and 3 here")
    finally:
        pool.close()
    assert not list(tmp_path.glob("out/*.pth"))
