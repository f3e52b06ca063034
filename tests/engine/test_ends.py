"""Whatever ends a run, it ends soon, with a sentence and without a traceback."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from forked import TINY, Ended, run_forked

from dnreid_plugins import cli
from dnreid_plugins.data.datasets import base as reader
from dnreid_plugins.dnmini import write as render_module
from dnreid_plugins.engine import evaluate as evaluate_module
from dnreid_plugins.engine import trainer as trainer_module

AREA = "ends"
SIGNALS = [signal.SIGTERM, signal.SIGINT]
MIB = 2**20


def says(ended: Ended, code: int, sentence: str) -> None:
    assert "Traceback" not in ended.said and "Exception ignored" not in ended.said, ended.said[-3000:]
    assert sentence in " ".join(ended.said.split()), ended.said[-3000:]
    assert ended.code == code


def signal_inside(module: Any, name: str, number: int) -> Callable[[], None]:
    """From the first call of ``module.name`` on, this process has got the signal ``number``."""

    def before() -> None:
        inner = getattr(module, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            os.kill(os.getpid(), number)
            time.sleep(0.2)
            return inner(*args, **kwargs)

        setattr(module, name, outer)

    return before


@pytest.mark.attack(AREA, "SIGTERM or Ctrl-C before training: reading, first evaluation, evaluation alone")
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize(
    ("place", "workers"),
    [("reading", 0), ("first evaluation", 0), ("first evaluation", 2), ("--eval-only", 0)],
)
def test_a_signal_before_training(
    tiny_cfg: CfgNode, tmp_path: Path, number: int, workers: int, place: str
) -> None:
    words = [*TINY, "OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", str(workers)]
    where = (trainer_module, "build_train_data") if place == "reading" else (evaluate_module, "evaluate")
    if place == "--eval-only":
        torch.save({"model": {}}, tmp_path / "any.pth")
        words = [place, *words, "MODEL.WEIGHTS", str(tmp_path / "any.pth")]
        where = (cli, "build_model")
    ended = run_forked(words, tmp_path, before=signal_inside(*where, number))
    says(ended, 128 + number, "while nothing was trained, so nothing is lost; the same command begins again.")


@pytest.mark.attack(AREA, "SIGTERM or Ctrl-C while DNMini is rendered: nothing is left")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_while_rendering(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))

    def before() -> None:
        def slowly(things: Any, *_: Any) -> Any:
            for place, thing in enumerate(things):
                if place == 2:
                    os.kill(os.getpid(), number)
                yield thing

        render_module.with_progress = slowly  # type: ignore[assignment]

    words = [*TINY, "DATASETS.NAMES", "('DNMini',)", "OUTPUT_DIR", str(tmp_path / "out")]
    ended = run_forked(words, tmp_path, before=before)
    says(ended, 128 + number, "while nothing was trained")
    assert list((tmp_path / "data").iterdir()) == []


def run_fresh(words: list[str], limits: tuple[int, int]) -> Ended:
    """The command line with these limits of file descriptors in a process that inherits no file of this one."""
    code = (
        "import sys, resource; from dnreid_plugins import cli; sys.path.insert(0, 'tests'); import conftest; "
    )
    code += f"resource.setrlimit(resource.RLIMIT_NOFILE, {limits}); cli.main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return Ended(done.returncode, done.stdout)


@pytest.mark.attack(AREA, "too few file descriptors for the loader's workers")
@pytest.mark.parametrize("limit", [20, 64])
def test_too_few_file_descriptors(tiny_cfg: CfgNode, tmp_path: Path, limit: int) -> None:
    words = [*TINY, "OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", "4"]
    says(
        run_fresh(words, (limit, limit)),
        1,
        "raise the limit (ulimit -n 112) or set DATALOADER.NUM_WORKERS 0",
    )


@pytest.mark.attack(AREA, "a soft limit of file descriptors below the need: raised")
def test_a_soft_limit_is_raised(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    words = [
        *TINY,
        "OUTPUT_DIR",
        str(tmp_path / "out"),
        "DATALOADER.NUM_WORKERS",
        "2",
        "SOLVER.MAX_EPOCH",
        "1",
    ]
    assert run_fresh([*words, "SOLVER.STEPS", "()"], (20, 4096)).code == 0


@pytest.mark.attack(AREA, "file descriptors run out in the check of the images: none is left out for it")
def test_descriptors_run_out_in_the_check(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    def before() -> None:
        inner = reader.readable_items

        def outer(*args: Any, **kwargs: Any) -> Any:
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))
            return inner(*args, **kwargs)

        reader.readable_items = outer

    words = [*TINY, "OUTPUT_DIR", str(tmp_path / "out"), "DATASETS.SKIP_BAD", "True"]
    says(run_forked(words, tmp_path, before=before), 1, "ulimit -n")


@pytest.mark.attack(AREA, "kill -9 of a loader's worker")
def test_a_killed_worker(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    def before() -> None:
        from dnreid_plugins.data import dataset

        def read(path: str) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

        dataset.read_image = read  # type: ignore[assignment]

    words = [*TINY, "OUTPUT_DIR", str(tmp_path / "out"), "DATALOADER.NUM_WORKERS", "2"]
    words += ["DATALOADER.CACHE", "off"]  # kept images are not read, so that nothing would be killed
    says(run_forked(words, tmp_path, before=before), 1, "error: A process that reads images ")


@pytest.mark.stress
@pytest.mark.attack(AREA, "too little memory (RLIMIT_AS)")
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["MODEL.HEADS.EMBEDDING_DIM", "40000000"], "error: Memory ran out"),
        # Where it runs out, in an image or in a thread for it, depends on what the process did before.
        (["INPUT.SIZE_TEST", "[24000, 24000]"], "Memory"),
    ],
)
def test_too_little_memory(tiny_cfg: CfgNode, tmp_path: Path, change: list[str], sentence: str) -> None:
    def before() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 500 * MIB, used + 500 * MIB))

    words = [*TINY, "OUTPUT_DIR", str(tmp_path / "out"), *change]
    says(run_forked(words, tmp_path, before=before), 1, sentence)


@pytest.mark.attack(AREA, "no checkpoint can ever be written (RLIMIT_FSIZE)")
@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        (4096, "config.yaml cannot be read or written (File too large)"),
        (16384, "there is no older one to go on from"),
    ],
)
def test_no_checkpoint_can_be_written(tiny_cfg: CfgNode, tmp_path: Path, limit: int, sentence: str) -> None:
    def before() -> None:
        trainer_module.TensorboardXWriter = lambda _: trainer_module.JSONWriter(str(tmp_path / "events"))  # type: ignore[assignment]
        cli.log_start = lambda *_: None
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    words = [*TINY, "OUTPUT_DIR", str(tmp_path / "out"), "TEST.EVAL_START", "False", "SOLVER.MAX_EPOCH", "3"]
    ended = run_forked(words, tmp_path, before=before)
    says(ended, 1, sentence)
    assert "older checkpoints are intact" not in ended.said and "epoch 2" not in ended.said.lower()


@pytest.mark.attack(AREA, "results.json whose start is no table")
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"start": 3}', "results.json cannot be read (start is 3"),
        ('{"start": {"DN348": [1]}}', "results.json cannot be read"),
        ('{"DN348": "x"}', "The result of DN348 is 'x', which is no table"),
    ],
)
def test_results_of_another_shape(tiny_cfg: CfgNode, tmp_path: Path, content: str, sentence: str) -> None:
    out = tmp_path / "out"
    assert run_forked([*TINY, "OUTPUT_DIR", str(out)], tmp_path).code == 0
    (out / "results.json").write_text(content)
    ended = run_forked([*TINY, "--resume", "OUTPUT_DIR", str(out)], tmp_path)
    says(ended, 0, sentence)


@pytest.mark.attack(AREA, "a config that contains itself, or lists in lists")
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("MODEL: &a\n  BACKBONE: *a\n", "contains itself"),
        ("SOLVER: {STEPS: &a [1, *a]}\n", "contains itself"),
        ("DATASETS: {TESTS: [[DN348]]}\n", "DATASETS.TESTS"),
        ("DATASETS: {NAMES: [[DN348]]}\n", "DATASETS.NAMES"),
        ("DATASETS: {TESTS: [3]}\n", "DATASETS.TESTS"),
    ],
)
def test_odd_configs(tiny_cfg: CfgNode, tmp_path: Path, text: str, sentence: str) -> None:
    base = f"_BASE_: {TINY[1]}\n"
    (tmp_path / "odd.yml").write_text(base + text)
    words = ["--config-file", str(tmp_path / "odd.yml"), "OUTPUT_DIR", str(tmp_path / "out")]
    says(run_forked(words, tmp_path), 1, sentence)


@pytest.mark.attack(AREA, "a zip bomb as a checkpoint")
def test_a_zip_bomb(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"model": {"weight": torch.zeros(3)}}, tmp_path / "small.pth")
    with zipfile.ZipFile(tmp_path / "small.pth") as small, zipfile.ZipFile(path, "w") as bomb:
        for info in small.infolist():
            bomb.writestr(info.filename, small.read(info), zipfile.ZIP_STORED)
        with bomb.open(zipfile.ZipInfo("small/data/1"), "w", force_zip64=True) as member:
            member.write(b"")
        deflated = zipfile.ZipInfo("small/data/2")
        deflated.compress_type = zipfile.ZIP_DEFLATED
        with bomb.open(deflated, "w", force_zip64=True) as member:
            for _ in range(256):
                member.write(bytes(MIB))
    words = ["--eval-only", *TINY, "OUTPUT_DIR", str(tmp_path / "out"), "MODEL.WEIGHTS", str(path)]
    ended = run_forked(words, tmp_path)
    says(ended, 1, "bomb.pth is no checkpoint")
