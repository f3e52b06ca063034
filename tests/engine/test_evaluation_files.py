"""An evaluation speaks of one model under the config of its run, and touches nothing of a run."""

from __future__ import annotations

import hashlib
import json
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from fastreid.engine import default_argument_parser
from PIL import Image
from run_helpers import StoppedError, stop_at

from dnreid_plugins.cli import main
from dnreid_plugins.engine.evaluation_file import feature_differences
from dnreid_plugins.engine.identity import config_items
from dnreid_plugins.engine.predictor import Predictor
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime import weight_files
from dnreid_plugins.runtime.weight_files import read_weight_file

TINY = ["--config-file", str(Path(__file__).parents[1] / "tiny.yml")]


@pytest.fixture(scope="module")
def run(tiny_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("evaluations") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(tiny_root))
        main([*TINY, "OUTPUT_DIR", str(folder), "TEST.EVAL_PERIOD", "1", "SEED", "3"])
        yield folder


def evaluate(run: Path, *opts: str, model: str = "model_final.pth", folder: Path | None = None) -> Any:
    weights = ["MODEL.WEIGHTS", str(run / model)]
    return main([*TINY, "--eval-only", *weights, "OUTPUT_DIR", str(folder or run), "SEED", "9", *opts])


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def evaluations(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((folder / "evaluations").glob("*.json"))]


@pytest.mark.attack(
    "evaluation", "in the folder of a finished run, of another model too: no file of the run changes"
)
def test_an_evaluation_changes_nothing_of_the_run(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    run, before = tmp_path / "run", contents(tmp_path / "run")
    assert json.loads(before["results.json"])["finished"] and b"SEED: 3" in before["config.yaml"]
    results = evaluate(run)
    evaluate(run, model="model_0001.pth")
    evaluate(run)  # again: the same file
    assert contents(run) == before
    first, final = sorted(evaluations(run), key=lambda one: one["model"])
    assert first["model"].endswith("model_0001.pth") and final["model"].endswith("model_final.pth")
    assert final["results"] == results != first["results"] and final["differences"] == {}
    assert final["model_sha256"] == hashlib.sha256((run / "model_final.pth").read_bytes()).hexdigest()
    assert set(final) == {
        *("model", "model_sha256", "weights", "data", "protocol", "config_hash", "code_version", "time"),
        *("differences", "results"),
    }
    assert final["data"]["DN348"].startswith("48-") and "24 queries" in final["protocol"]["DN348"]
    run_s = json.loads(before["results.json"])
    assert run_s["data"]["DN348"] == final["data"]["DN348"] and run_s["DN348"] == results["DN348"]
    assert run_s["data"]["training images"].startswith("72-")
    assert "Results in percent" in (run / "evaluations" / "log.txt").read_text()


def test_a_stopped_run_is_not_finished_in_its_results(tiny_cfg: CfgNode) -> None:
    trainer = CrossDomainTrainer(tiny_cfg)
    trainer.resume_or_load(resume=False)
    stop_at(trainer, 5)
    with pytest.raises(StoppedError):
        trainer.train()
    results = json.loads((Path(tiny_cfg.OUTPUT_DIR) / "results.json").read_text())
    assert results["finished"] is False and results["epochs"] == 0 and "code_version" in results


@pytest.mark.attack("two runs in one folder", "a fresh one after a finished one: all of that is set aside")
def test_a_fresh_run_sets_its_whole_predecessor_aside(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    run = tmp_path / "run"
    (run / "evaluations").mkdir(exist_ok=True)
    for name in ("bad_batch.pt", "bad_batch.rank1.pt", "evaluations/model_final-01234567.json"):
        (run / name).write_text("old")
    before = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    short = ["SOLVER.MAX_EPOCH", "1", "SOLVER.STEPS", "()", "TEST.EVAL_START", "False", "SEED", "4"]
    main([*TINY, "OUTPUT_DIR", str(run), *short])
    old = run / "previous-001"
    assert {p.relative_to(old).as_posix() for p in old.rglob("*") if p.is_file()} == before
    assert "SEED: 3" in (old / "config.yaml").read_text() and "SEED: 4" in (run / "config.yaml").read_text()
    assert not list(run.glob("bad_batch*")) and not (run / "evaluations").exists()


@pytest.mark.attack(
    "evaluation", "a fast-reid script with --eval-only in the folder of a run: no file changes"
)
def test_a_script_that_evaluates_touches_nothing_of_the_run(
    tiny_cfg: CfgNode, run: Path, tmp_path: Path, as_fastreid: None
) -> None:
    shutil.copytree(run, tmp_path / "run")
    before = contents(tmp_path / "run")
    opts = ["MODEL.WEIGHTS", str(run / "model_final.pth"), "OUTPUT_DIR", str(tmp_path / "run"), "SEED", "9"]
    main = runpy.run_path(str(Path(__file__).with_name("fastreid_script.py")))["main"]
    for _ in range(2):
        main(default_argument_parser().parse_args([*TINY, "--eval-only", *opts]))
    assert contents(tmp_path / "run") == before and len(evaluations(tmp_path / "run")) == 1
    log = (tmp_path / "run" / "evaluations" / "log.txt").read_text()
    assert log.count("Running with full config") == 2 and "Results in percent" in log


def test_the_weights_are_read_once(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    inner = weight_files.torch.load

    def load(path: Any, **kwargs: Any) -> Any:
        read.append(str(path))
        return inner(path, **kwargs)

    monkeypatch.setattr(weight_files.torch, "load", load)
    evaluate(run, "INPUT.SIZE_TEST", "[16, 16]", "TEST.SET_ANYWAY", "True", folder=tmp_path)
    assert read == [str(run / "model_final.pth")]
    assert (tmp_path / "evaluations" / "log.txt").read_text().count("TEST.SET_ANYWAY: ") == 1


# ------------------------------------------------------------------ another config


OTHER = [
    ("MODEL.PIXEL_MEAN", "[0.0, 0.0, 0.0]"),
    ("MODEL.PIXEL_STD", "[1.0, 1.0, 1.0]"),
    ("INPUT.SIZE_TEST", "[16, 16]"),
    ("MODEL.HEADS.POOL_LAYER", "GlobalMaxPool"),
    ("MODEL.HEADS.WITH_BNNECK", "False"),
    ("MODEL.HEADS.EMBEDDING_DIM", "8"),
    ("MODEL.DUAL_STREAM.MODULES", "()"),
    ("TEST.FLIP.ENABLED", "True"),
    ("MODEL.TEACHER.ENABLED", "True"),
]


@pytest.mark.parametrize(("key", "value"), OTHER)
@pytest.mark.attack("evaluation", "a key that decides the features differs from the run's: refused")
def test_another_config_is_refused(run: Path, tmp_path: Path, key: str, value: str) -> None:
    sentence = (
        rf"error: .*({key}: .* there, .* here.*TEST.SET_ANYWAY True|does not fit the model.*heads.bottleneck)"
    )
    with pytest.raises(SystemExit, match=sentence):
        evaluate(run, key, value, folder=tmp_path)
    assert not evaluations(tmp_path)


def test_the_best_model_knows_its_config(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SystemExit, match="model_best.pth comes from a run with another setting .MODEL.PIXEL_MEAN"
    ):
        evaluate(run, "MODEL.PIXEL_MEAN", "[0.0, 0.0, 0.0]", model="model_best.pth", folder=tmp_path)


@pytest.mark.attack("evaluation", "such a difference asked for with TEST.SET_ANYWAY: said and written down")
def test_another_config_may_be_meant(run: Path, tmp_path: Path) -> None:
    evaluate(run, "INPUT.SIZE_TEST", "[16, 16]", "TEST.SET_ANYWAY", "True", folder=tmp_path)
    (one,) = evaluations(tmp_path)
    assert one["differences"] == {"INPUT.SIZE_TEST": "(24, 24) there, (16, 16) here"}
    assert "TEST.SET_ANYWAY: " in (tmp_path / "evaluations" / "log.txt").read_text()


@pytest.mark.attack("evaluation", "weights of the neck are missing: refused")
def test_missing_weights_of_the_features_are_never_accepted(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"does not fit the model: \d+ of \d+ tensors.*heads.bottleneck"):
        evaluate(run, "MODEL.HEADS.EMBEDDING_DIM", "8", "TEST.SET_ANYWAY", "True", folder=tmp_path)
    state = read_weight_file(run / "model_final.pth")["model"]
    bare = {k: v for k, v in state.items() if not k.startswith("heads.bottleneck")}
    torch.save({"model": bare}, tmp_path / "bare.pth")
    with pytest.raises(SystemExit, match="does not fit the model.*heads.bottleneck"):
        evaluate(tmp_path, model="bare.pth", folder=tmp_path)


@pytest.mark.attack("evaluation", "another image in the test set than the run was scored on: refused")
def test_other_test_images_are_refused(
    run: Path, tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_root, tmp_path / "data")
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    evaluate(run, folder=tmp_path)
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(tmp_path / "data/dn348/night/00007/003.png")
    with pytest.raises(SystemExit, match=r"another setting \(DN348: night/00007/003.png has size"):
        evaluate(run, folder=tmp_path)


def test_a_predictor_refuses_it_too(tiny_cfg: CfgNode, run: Path) -> None:
    tiny_cfg.MODEL.WEIGHTS = str(run / "model_final.pth")
    Predictor(tiny_cfg)
    tiny_cfg.MODEL.HEADS.POOL_LAYER = "GlobalMaxPool"
    with pytest.raises(ValueError, match="MODEL.HEADS.POOL_LAYER: .*there"):
        Predictor(tiny_cfg)


def test_what_only_training_depends_on_may_differ(tiny_cfg: CfgNode) -> None:
    stored = config_items(tiny_cfg)
    other = tiny_cfg.clone()
    for key, value in (
        *(("MODEL.HEADS.NUM_CLASSES", 7), ("MODEL.DEVICE", "cuda"), ("MODEL.BACKBONE.PRETRAIN", True)),
        *(("MODEL.DUAL_STREAM.SHARED_BN", "frozen"), ("SOLVER.BASE_LR", 1.0), ("INPUT.SIZE_TRAIN", [8, 8])),
    ):
        other.merge_from_list([key, value])
    other.MODEL.LOSSES.NAME = ("CrossEntropyLoss",)
    assert feature_differences(stored, config_items(other)) == {}
    assert feature_differences({}, stored) == {}  # a file that says nothing
