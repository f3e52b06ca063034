"""The command lines a user types: our train_net.py, an unmodified fast-reid script, and what goes wrong."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode

from dnreid_plugins import cli
from dnreid_plugins.cli import main

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("fastreid_script.py")
# The tests' own backbone does not exist in another process.
SMALL = ["MODEL.BACKBONE.NAME", "build_mobilenetv2_backbone", "MODEL.BACKBONE.DEPTH", "0.1x"]
SMALL += ["MODEL.BACKBONE.FEAT_DIM", "1280", "MODEL.DUAL_STREAM.MODULES", "('features.0',)"]


def run(command: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FASTREID_DATASETS": str(root), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def scalars(folder: Path) -> set[str]:
    return {key for line in (folder / "metrics.json").read_text().splitlines() for key in json.loads(line)}


def tables(screen: str) -> int:
    return screen.count("Results in percent")


def test_an_unmodified_fastreid_script_trains_and_evaluates(tiny_root: Path, tmp_path: Path) -> None:
    config = ["--config-file", "tests/tiny.yml"]
    out = ["OUTPUT_DIR", str(tmp_path)]
    done = run(["-m", "dnreid_plugins", str(SCRIPT), *config, *SMALL, *out], tiny_root)
    assert done.returncode == 0, done.stderr[-2000:]
    trained = results(tmp_path)
    assert trained["finished"] and set(trained["DN348"]) >= {"D2N", "N2D"}
    assert "generated random seed" not in done.stdout + done.stderr
    assert tables(done.stdout) == 2  # of the start and of the end
    assert (
        "| DN348 | D2N         | before " in done.stdout and "| DN348 | N2D         | after " in done.stdout
    )

    weights = ["MODEL.WEIGHTS", str(tmp_path / "model_final.pth"), "OUTPUT_DIR", str(tmp_path / "eval")]
    done = run(["-m", "dnreid_plugins", str(SCRIPT), *config, "--eval-only", *SMALL, *weights], tiny_root)
    assert done.returncode == 0, done.stderr[-2000:]
    (evaluation,) = (tmp_path / "eval" / "evaluations").glob("*.json")
    assert json.loads(evaluation.read_text())["results"]["DN348"] == trained["DN348"]
    assert tables(done.stdout) == 1 and f"{trained['DN348']['N2D']['mAP']:.2f}" in done.stdout

    # Our own command line: the same figures under the same names, each table once.
    out = ["OUTPUT_DIR", str(tmp_path / "own")]
    done = run(["tools/train_net.py", *config, *SMALL, *out], tiny_root)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "generated random seed" not in (tmp_path / "own" / "log.txt").read_text()
    assert results(tmp_path / "own") == trained and tables(done.stdout) == 2
    assert scalars(tmp_path / "own") == scalars(tmp_path)


def test_an_unmodified_fastreid_script_runs_base_on_dnmini(tmp_path: Path) -> None:
    """The shipped config itself, data set and start weights included; shortened to one epoch of two steps."""
    short = ["SOLVER.MAX_EPOCH", "1", "SOLVER.STEPS", "()", "DATALOADER.ITERS_PER_EPOCH", "2"]
    out = ["TEST.EVAL_START", "False", "TEST.WITHIN_DOMAIN", "False", "OUTPUT_DIR", str(tmp_path / "out")]
    command = ["-m", "dnreid_plugins", str(SCRIPT), "--config-file", "configs/DNMini/base.yml", *short, *out]
    done = run(command, tmp_path / "datasets")
    assert done.returncode == 0, done.stderr[-2000:]
    found = results(tmp_path / "out")
    assert found["finished"] and found["DNMini"]["N2D"]["mAP"] > 10  # chance is 1.7


def test_a_missing_script_is_one_sentence(tiny_root: Path) -> None:
    done = run(["-m", "dnreid_plugins", "no_such_script.py"], tiny_root)
    assert done.returncode != 0 and "no script 'no_such_script.py'" in done.stderr
    assert "Traceback" not in done.stderr


def test_train_net_trains_evaluates_and_resumes(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    config = ["--config-file", str(ROOT / "tests" / "tiny.yml")]
    first = main([*config, "OUTPUT_DIR", str(tmp_path / "a")])
    assert set(first["DN348"]) >= {"D2N", "N2D"}
    weights = ["MODEL.WEIGHTS", str(tmp_path / "a" / "model_final.pth")]
    again = main([*config, "--eval-only", *weights, "OUTPUT_DIR", str(tmp_path / "b")])
    assert again == first
    # Resuming a finished run gives its result again.
    assert main([*config, "--resume", "OUTPUT_DIR", str(tmp_path / "a")])["DN348"] == first["DN348"]


def test_a_refused_resume_leaves_the_folder_as_it_was(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    config = ["--config-file", str(ROOT / "tests" / "tiny.yml")]
    main([*config, "SOLVER.MAX_EPOCH", "1", "SOLVER.STEPS", "()", "OUTPUT_DIR", str(tmp_path)])
    kept = (tmp_path / "config.yaml").read_bytes()
    assert b"MAX_EPOCH: 1" in kept
    with pytest.raises(SystemExit, match="error: The config changed since the checkpoint"):
        main([*config, "--resume", "OUTPUT_DIR", str(tmp_path)])
    assert (tmp_path / "config.yaml").read_bytes() == kept
    assert not list(tmp_path.glob(".*.part"))


def test_a_foreign_checkpoint_is_no_run_to_go_on_from(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(1)}, "iteration": 3}, tmp_path / "model_0003.pth")
    with pytest.raises(SystemExit, match=r"error: .*model_0003.pth is not a checkpoint .* as MODEL.WEIGHTS"):
        main(["--config-file", str(ROOT / "tests" / "tiny.yml"), "--resume", "OUTPUT_DIR", str(tmp_path)])


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "A file cannot be .*No space left.*free some space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b cannot be .*Permission denied"),
        (OSError("model_final.pth could not be written"), "model_final.pth could not be written$"),
    ],
)
def test_what_the_system_refuses_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, error: OSError, sentence: str
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(cli, "launch", refuse)
    with pytest.raises(SystemExit, match=f"^error: {sentence}"):
        main(["--config-file", "any.yml"])


def test_without_arguments_it_says_what_to_give() -> None:
    with pytest.raises(
        SystemExit, match=r"^error: no config was named; .*--config-file .*base\.yml OUTPUT_DIR"
    ):
        main([])


def test_where_an_error_arose_is_for_the_log_file_only(
    tiny_cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise ValueError("a sentence for the user.")

    monkeypatch.setattr(cli.CrossDomainTrainer, "train", refuse)
    with pytest.raises(SystemExit, match=r"^error: a sentence for the user\.$"):
        main(["--config-file", str(ROOT / "tests" / "tiny.yml"), "OUTPUT_DIR", str(tmp_path)])
    screen = "".join(capsys.readouterr())
    assert "Adam: " in screen and "Traceback" not in screen and "traceback of" not in screen
    log = (tmp_path / "log.txt").read_text()
    assert "Traceback" in log and "in refuse" in log


@pytest.mark.parametrize("sampler", ["TrainingSampler", "NaiveIdentitySampler", "BalancedIdentitySampler"])
def test_stock_supervised_training(tiny_cfg: CfgNode, tmp_path: Path, sampler: str) -> None:
    """fast-reid's Baseline with cross-entropy and triplet through our trainer."""
    stock = ["MODEL.META_ARCHITECTURE", "Baseline", "MODEL.HEADS.NAME", "EmbeddingHead"]
    stock += ["MODEL.LOSSES.NAME", "('CrossEntropyLoss', 'TripletLoss')", "MODEL.DUAL_STREAM.MODULES", "()"]
    stock += ["DATALOADER.SAMPLER_TRAIN", sampler, "SOLVER.IMS_PER_BATCH", "8", "OUTPUT_DIR", str(tmp_path)]
    got = main(["--config-file", str(ROOT / "tests" / "tiny.yml"), *stock])
    assert 0 <= got["DN348"]["D2N"]["mAP"] <= 100


BAD = {
    "unknown key": (["CLUSTER.EPSS", "0.5"], "CLUSTER.EPS"),
    "no such config": (["--config-file", "nowhere.yml"], "nowhere.yml"),
    "cuda without cuda": (["MODEL.DEVICE", "cuda"], "MODEL.DEVICE"),
    "unknown data set": (["DATASETS.NAMES", "('DN349',)"], "DN349"),
    "batch does not divide": (["SOLVER.IMS_PER_BATCH", "18"], "SOLVER.IMS_PER_BATCH"),
    "unknown loss": (["MODEL.LOSSES.NAME", "('ClusterNCEE',)"], "ClusterNCEE"),
    "unknown backbone": (["MODEL.BACKBONE.NAME", "build_resnet"], "build_resnet"),
    "unknown stream module": (["MODEL.DUAL_STREAM.MODULES", "('layer7',)"], "layer7"),
    "missing weights": (["MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth"),
    "pretrain without path": (["MODEL.BACKBONE.PRETRAIN", "True"], "PRETRAIN_PATH"),
    "unknown shipped weights": (
        ["MODEL.BACKBONE.PRETRAIN", "True", "MODEL.BACKBONE.PRETRAIN_PATH", "shipped:none"],
        "shipped:none",
    ),
    "bad policy": (["CLUSTER.ON_EMPTY", "shrug"], "CLUSTER.ON_EMPTY"),
    "bad resume of another run": (["SOLVER.OPT", "Adamm"], "SOLVER.OPT"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_input_is_one_sentence_before_training(
    case: str, tiny_cfg: CfgNode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, named = BAD[case]
    config = [] if "--config-file" in words else ["--config-file", str(ROOT / "tests" / "tiny.yml")]
    with pytest.raises(SystemExit) as stop:
        main([*config, *words, *([] if "--config-file" in words else ["OUTPUT_DIR", str(tmp_path / "out")])])
    text = str(stop.value)
    assert text.startswith("error: ") and named in text
    assert not list(tmp_path.rglob("*.pth")) and not list(tmp_path.rglob("results.json"))


def test_missing_data_names_the_way_out(
    tiny_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit) as stop:
        main(["--config-file", str(ROOT / "tests" / "tiny.yml"), "OUTPUT_DIR", str(tmp_path / "out")])
    assert "FASTREID_DATASETS" in str(stop.value)
