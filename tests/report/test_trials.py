"""Trials: which runs, resumed not repeated, mean and deviation, and every refusal in a sentence."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dnreid_plugins.commands.app import app
from dnreid_plugins.commands.trials import numbers_of
from dnreid_plugins.dnmini.stand_ins import write_stand_in
from dnreid_plugins.report import runs
from dnreid_plugins.report.trials import plan_trials, run_trials, text_of_trials

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "my trials.yml"
    path.write_text("DATASETS: {NAMES: [RegDB], TESTS: [RegDB]}\nMODEL: {DEVICE: cpu}\n")
    return str(path)


class Runs:
    """Stands in for the processes: a run writes the figures of its trial, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.commands: list[list[str]] = []
        self.gpus: list[str | None] = []
        self.failing: set[str] = set()
        monkeypatch.setattr(runs.subprocess, "run", self.run)

    def run(self, command: list[str], env: dict[str, str], stdout: Any, **_: Any) -> Any:
        self.commands.append(command)
        self.gpus.append(env.get("CUDA_VISIBLE_DEVICES"))
        words = dict(zip(command[7::2], command[8::2], strict=True))
        trial = words["DATASETS.REGDB_TRIAL"]
        if trial in self.failing:
            stdout.write("loading\nerror: the folder is gone\n")
            return subprocess.CompletedProcess(command, 1)
        figures = {"Rank-1": 10.0 * int(trial), "mAP": float(trial) ** 2}
        content = {"RegDB": {"D2N": figures, "N2D": {**figures, "Rank-1": 7.0}}, "finished": True}
        content["protocol"] = {"RegDB": "RegDB trial 1: rules; a stand-in, not the real set"}
        (Path(words["OUTPUT_DIR"]) / "results.json").write_text(json.dumps(content))
        return subprocess.CompletedProcess(command, 0)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(monkeypatch)


def test_every_trial_is_trained_once_and_the_mean_is_kept(config: str, world: Runs, tmp_path: Path) -> None:
    planned = plan_trials(config, ["SEED", "4", "SOLVER.MAX_EPOCH", "3"])
    found = run_trials(planned, tmp_path / "logs", jobs=3)
    asked = [command[command.index("DATASETS.REGDB_TRIAL") + 1] for command in world.commands]
    assert sorted(asked, key=int) == [str(number) for number in range(1, 11)]
    assert all(command[command.index("SEED") + 1] == "4" for command in world.commands)
    assert all(command[command.index("SOLVER.MAX_EPOCH") + 1] == "3" for command in world.commands)
    assert found["mean"]["D2N"] == {"Rank-1": 55.0, "mAP": 38.5}
    assert found["std"]["D2N"]["Rank-1"] == pytest.approx(np.std(10.0 * np.arange(1, 11), ddof=1))
    assert found["std"]["N2D"]["Rank-1"] == 0.0 and len(found["trials"]) == 10
    assert json.loads(planned.file(tmp_path / "logs").read_text()) == found
    text = text_of_trials(found)
    assert (
        "a stand-in, not the real set" in text
        and "55.00 ± 30.28" in text
        and "10 trials, a model each" in text
    )
    world.commands.clear()
    assert (
        run_trials(plan_trials(config, ["SEED", "4", "SOLVER.MAX_EPOCH", "3"]), tmp_path / "logs", jobs=1)
        == found
    )
    assert world.commands == []  # nothing is repeated ...
    run_trials(plan_trials(config, ["SEED", "5"], numbers=[2]), tmp_path / "logs", jobs=1)
    assert len(world.commands) == 1  # ... but of another run


def test_a_failed_trial_is_named_and_the_others_are_kept(config: str, world: Runs, tmp_path: Path) -> None:
    world.failing = {"2", "5"}
    with pytest.raises(
        ValueError, match=r"2 of 10 runs failed \(trial 2, trial 5\); .*run.log, says: the folder is gone"
    ):
        run_trials(plan_trials(config), tmp_path, jobs=1)
    assert not list(tmp_path.glob("*.json"))
    world.failing, done = set(), len(world.commands)
    run_trials(plan_trials(config), tmp_path, jobs=1)
    assert len(world.commands) == done + 2


def test_gpus_are_shared(config: str, world: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    run_trials(plan_trials(config, numbers=[1, 2]), tmp_path, jobs=2)
    assert world.gpus == ["3,5", "3,5"]  # a run on the CPU needs none of its own
    world.gpus.clear()
    run_trials(plan_trials(config, ["MODEL.DEVICE", "cuda"]), tmp_path, jobs=4)
    assert set(world.gpus) == {"3", "5"} and len(world.gpus) == 10


@pytest.mark.parametrize(
    ("data", "numbers", "message"),
    [
        ("RegDB", [11], "RegDB has the trials 1-10, not 11"),
        ("RegDB", [0], "not 0"),
        ("SYSUMM01", [1], "SYSUMM01 is trained once and scored on 10 galleries"),
        ("DN348", None, "DN348 has one split and one gallery"),
        ("Market1501", None, "Market1501 has one split"),
    ],
)
def test_what_has_no_such_trials_is_refused(config: str, data: str, numbers: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_trials(config, ["DATASETS.NAMES", f"('{data}',)"], numbers=numbers)


def test_numbers_of_trials_are_read() -> None:
    assert numbers_of("") is numbers_of(" ") is None
    assert numbers_of("1-3, 7") == [1, 2, 3, 7] and numbers_of("2") == [2]
    for text in ("x", "3-1", "1-", "-2", "1,,2", "1.5"):
        with pytest.raises(ValueError, match="give numbers such as"):
            numbers_of(text)


def test_the_command_trains_regdbs_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole wire: a stand-in, two trials in processes of their own, the table and the file."""
    write_stand_in("RegDB", tmp_path, workers=1)
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_parts_plugin.py").write_text(
        "from tiny_run import register_tiny_backbone\n\nregister_tiny_backbone()\n"
    )
    (tmp_path / "tiny.yml").write_text(
        f"_BASE_: {ROOT / 'tests' / 'tiny.yml'}\nPLUGINS: [tiny_parts_plugin]\n"
        "DATASETS: {NAMES: [RegDB], TESTS: [RegDB]}\nTEST: {EVAL_START: False}\n"
    )
    words = [
        "trials",
        "tiny.yml",
        "SOLVER.MAX_EPOCH",
        "1",
        "SOLVER.STEPS",
        "()",
        "DATALOADER.ITERS_PER_EPOCH",
        "1",
    ]
    result = CliRunner().invoke(app, [*words, "--trials", "3,8", "--jobs", "2", "--logs", "out"])
    assert result.exit_code == 0, (result.output, result.exception)
    odd = CliRunner().invoke(app, ["trials", "tiny.yml", "SEED"])
    assert isinstance(odd.exception, ValueError) and "SEED has no value" in str(odd.exception)
    assert "a stand-in, not the real set" in result.output
    assert re.search(r"\| D2N +\| +\d+\.\d\d ± \d+\.\d\d", result.output)
    (file,) = (tmp_path / "out").glob("*.json")
    found = json.loads(file.read_text())
    assert list(found["trials"]) == ["trial 3", "trial 8"]
    lists = [one["results"]["D2N"]["mAP"] for one in found["trials"].values()]
    assert lists[0] != lists[1] and found["mean"]["D2N"]["mAP"] == pytest.approx(np.mean(lists))
