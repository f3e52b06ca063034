"""A run on an odd machine, with another locale, clock or file system, ends with the bits of an undisturbed one."""

from __future__ import annotations

import errno
import fcntl
import json
import locale
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from forked import TINY, run_forked
from test_surroundings import AREA, trained

CHECKPOINTS = ["SOLVER.CHECKPOINT_MINUTES", "1e-9", "SOLVER.CHECKPOINT_KEEP", "9"]


@pytest.fixture(scope="module")
def whole(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(tiny_root))
        assert trained(run_forked([*TINY, "OUTPUT_DIR", str(folder / "out")], folder), folder / "out")
    return folder / "out"


def rest_again(out: Path) -> None:
    """Take the last steps from a run with `CHECKPOINTS`, so that a resume does them again."""
    for name in ("model_final.pth", "model_iter00000007.pth", "last_checkpoint"):
        (out / name).unlink()


def same_run(one: Path, other: Path) -> bool:
    """Equal weights to the bit, equal metrics and equal health lines."""
    states = [torch.load(folder / "model_final.pth", weights_only=True)["model"] for folder in (one, other)]
    same = all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    tables = [json.loads((folder / "results.json").read_text())["DN348"] for folder in (one, other)]
    health = [(folder / "health.jsonl").read_text() for folder in (one, other)]
    return same and tables[0] == tables[1] and health[0] == health[1]


@pytest.fixture
def comma(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a locale that writes 1,5 for one and a half, made here since no machine needs to have one."""
    name = "de_DE.UTF-8"
    made = shutil.which("localedef") and subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / name)], capture_output=True, check=False
    )
    if not made or not (tmp_path / name / "LC_NUMERIC").is_file():
        pytest.skip("localedef and the sources of de_DE are missing")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    return name


@pytest.mark.stress
@pytest.mark.attack(AREA, "a locale with decimal commas: a run, its resume and evaluation, to the bit")
def test_decimal_commas(tiny_cfg: CfgNode, whole: Path, tmp_path: Path, comma: str) -> None:
    def before() -> None:
        os.environ.update(LC_ALL=comma, LANG=comma)
        locale.setlocale(locale.LC_ALL, "")
        assert locale.format_string("%.1f", 1.5) == "1,5"

    out = tmp_path / "out"
    words = [*TINY, *CHECKPOINTS]
    assert trained(run_forked([*words, "OUTPUT_DIR", str(out)], tmp_path, before=before), out)
    assert same_run(whole, out)
    rest_again(out)
    assert trained(run_forked(["--resume", *words, "OUTPUT_DIR", str(out)], tmp_path, before=before), out)
    assert same_run(whole, out)
    config = ["--config-file", str(out / "config.yaml"), "MODEL.WEIGHTS", str(out / "model_final.pth")]
    ended = run_forked(["--eval-only", *config, "OUTPUT_DIR", str(out)], tmp_path, before=before)
    assert ended.code == 0, ended.said[-3000:]
    (file,) = (out / "evaluations").glob("*.json")
    assert (
        json.loads(file.read_text())["results"]["DN348"]
        == json.loads((out / "results.json").read_text())["DN348"]
    )


@pytest.mark.stress
@pytest.mark.attack(AREA, "the clock jumps by hours in the run, forwards and back")
@pytest.mark.parametrize("clock", ["time", "monotonic"])
def test_a_clock_that_jumps(tiny_cfg: CfgNode, whole: Path, tmp_path: Path, clock: str) -> None:
    """Only what is said of times may change; ``monotonic`` leaps forwards alone, as after the sleep of a machine."""

    def before() -> None:
        inner, calls = getattr(time, clock), iter(range(10**9))

        def leaping() -> float:
            call = next(calls)
            return float(
                inner() + (3600 * call if clock == "monotonic" else (-1) ** call * 40_000 * (call % 7))
            )

        setattr(time, clock, leaping)

    out = tmp_path / "out"
    words = [*TINY, *CHECKPOINTS]
    assert trained(run_forked([*words, "OUTPUT_DIR", str(out)], tmp_path, before=before), out)
    assert same_run(whole, out)


@pytest.mark.stress
@pytest.mark.attack(AREA, "a file system without links, locks, file times and folders that sync")
def test_a_poor_file_system(tiny_cfg: CfgNode, whole: Path, tmp_path: Path) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    def before() -> None:
        inner = os.fsync

        def fsync(descriptor: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                refused()
            inner(descriptor)

        os.link = os.symlink = os.utime = os.chmod = refused  # type: ignore[assignment]
        fcntl.flock = fcntl.lockf = refused  # type: ignore[assignment]
        os.fsync = fsync

    out = tmp_path / "out"
    words = [*TINY, *CHECKPOINTS]
    assert trained(run_forked([*words, "OUTPUT_DIR", str(out)], tmp_path, before=before), out)
    rest_again(out)
    assert trained(run_forked(["--resume", *words, "OUTPUT_DIR", str(out)], tmp_path, before=before), out)
    assert same_run(whole, out) and not (out / "run.lock").exists()
