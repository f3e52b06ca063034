"""What must be connected for the patches to reach a run: compat, trainer, config, command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fastreid.engine
import fastreid.engine.defaults
import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.data.datasets.bases import ImageDataset
from fastreid.layers import any_softmax
from fastreid.modeling import meta_arch
from fastreid.modeling.meta_arch import baseline, build_model, mgn, moco
from run_helpers import same, train

from dnreid_plugins.engine.predictor import Predictor
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.patches import losses as fastreid_parts
from dnreid_plugins.patches.distiller import Distiller
from dnreid_plugins.runtime.config_files import merge_with_suggestions
from dnreid_plugins.runtime.weight_files import read_weight_file

ROOT = Path(__file__).resolve().parents[2]


def test_fastreids_parts_are_ours() -> None:
    assert any_softmax.ArcSoftmax is fastreid_parts.SafeArcSoftmax
    assert moco.Memory is fastreid_parts.QueueMemory
    assert meta_arch.Distiller is Distiller
    assert baseline.cross_entropy_loss is mgn.cross_entropy_loss is fastreid_parts.cross_entropy_loss
    cfg = get_cfg()
    merge_with_suggestions(
        cfg,
        "",
        [
            *(
                "MODEL.DEVICE",
                "cpu",
                "MODEL.BACKBONE.NAME",
                "build_tiny_backbone",
                "MODEL.BACKBONE.FEAT_DIM",
                "16",
            ),
            *(
                "MODEL.META_ARCHITECTURE",
                "Distiller",
                "KD.EMA.ENABLED",
                "True",
                "MODEL.HEADS.NUM_CLASSES",
                "2",
            ),
        ],
    )
    assert isinstance(build_model(cfg), Distiller)


@pytest.mark.parametrize("lazy", [False, True])
def test_lists_of_fastreids_readers_are_sorted(lazy: bool) -> None:
    items = [("c2.jpg", 1, 0), ("c1.jpg", 7, 1), ("c10.jpg", 2, 0)]
    given: Any = (lambda: list(items)) if lazy else list(items)
    dataset = ImageDataset(given, given, given)
    assert dataset.train == dataset.query == dataset.gallery == sorted(items)


def test_frozen_layers_stay_frozen_in_a_run(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.FREEZE_LAYERS, tiny_cfg.SOLVER.FREEZE_ITERS = ["backbone.conv1", "backbone.bn1"], 100
    tiny_cfg.TEST.EVAL_PERIOD = 1
    trainer = CrossDomainTrainer(tiny_cfg)
    before = {key: value.clone() for key, value in trainer.bare_model.state_dict().items()}
    trainer.train()
    changed = {
        key for key, value in trainer.bare_model.state_dict().items() if not torch.equal(value, before[key])
    }
    assert changed
    assert not any(".conv1." in key or ".bn1." in key for key in changed)


def test_averaged_weights_end_in_the_checkpoint_and_survive_a_resume(
    tiny_cfg: CfgNode, tmp_path: Path
) -> None:
    tiny_cfg.SOLVER.SWA.ENABLED, tiny_cfg.SOLVER.SWA.START_EPOCH = True, 2
    tiny_cfg.SOLVER.MAX_EPOCH, tiny_cfg.SOLVER.CHECKPOINT_KEEP, tiny_cfg.DATASETS.TESTS = 4, 9, ()
    straight = train(tiny_cfg).bare_model.state_dict()
    folder = Path(tiny_cfg.OUTPUT_DIR)
    epochs = [read_weight_file(folder / f"model_{epoch:04d}.pth")["model"] for epoch in (2, 3)]
    final = read_weight_file(folder / "model_final.pth")
    assert final["hooks"]["weight_average"]["count"] == 3
    for key, value in final["model"].items():
        if value.is_floating_point() and key.endswith("conv2.weight"):
            last = 3 * final["hooks"]["weight_average"]["mean"][key] - epochs[0][key] - epochs[1][key]
            torch.testing.assert_close(value, (epochs[0][key] + epochs[1][key] + last) / 3)
    for name in ("model_final.pth", "last_checkpoint"):
        (folder / name).unlink()
    (folder / "model_0003.pth").unlink()
    assert same(straight, train(tiny_cfg, resume=True).bare_model.state_dict())


def test_the_best_epoch_is_kept_with_its_own_score(tiny_cfg: CfgNode) -> None:
    tiny_cfg.TEST.EVAL_PERIOD, tiny_cfg.SOLVER.MAX_EPOCH = 1, 3
    train(tiny_cfg)
    rows = [
        json.loads(line) for line in (Path(tiny_cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    ]
    scores = {}
    for row in rows:
        if "DN348/D2N/mAP" in row:
            names = [f"DN348/{d}/{m}" for d in ("D2N", "N2D") for m in ("mAP", "Rank-1")]
            scores[row["iteration"]] = sum(row[name] for name in names) / 4
    best = read_weight_file(Path(tiny_cfg.OUTPUT_DIR) / "model_best.pth")
    assert len(scores) == 3
    assert best["metric"] == pytest.approx(max(scores.values()))
    assert scores[best["iteration"]] == pytest.approx(best["metric"])


def test_a_second_run_in_the_folder_does_not_mix_with_the_first(tiny_cfg: CfgNode) -> None:
    train(tiny_cfg)
    folder = Path(tiny_cfg.OUTPUT_DIR)
    rows = (folder / "metrics.json").read_text().splitlines()
    tiny_cfg.MODEL.WEIGHTS = str(folder / "model_final.pth")
    train(tiny_cfg)
    assert len((folder / "metrics.json").read_text().splitlines()) == len(rows)
    assert (folder / "previous-001" / "metrics.json").read_text().splitlines() == rows
    assert (folder / "previous-001" / "model_final.pth").is_file()
    train(tiny_cfg, resume=True)
    assert not (folder / "previous-002").exists()


def test_figures_of_a_loss_head_reach_the_metrics_at_each_audit(tiny_cfg: CfgNode) -> None:
    tiny_cfg.MODEL.LOSSES.NAME, tiny_cfg.DATASETS.TESTS = ("ClusterNCE", "MAA", "DGM"), ()
    tiny_cfg.MODEL.LOSSES.MAA.WEIGHT = ((1, 0.0), (2, 0.5))
    trainer = CrossDomainTrainer(tiny_cfg)
    trainer.bare_model.parts.losses["ClusterNCE"].statistics = {"undefined": torch.tensor(float("nan"))}
    trainer.train()
    rows = [
        json.loads(line) for line in (Path(tiny_cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    ]
    found = {row["iteration"]: row["MAA/cross_to_intra"] for row in rows if "MAA/cross_to_intra" in row}
    # AUDIT.PERIOD is 3, epoch 2 begins at iteration 4.
    assert list(found) == [6] and 0.3 < found[6] < 3.0
    assert not any("undefined" in key for row in rows for key in row)


def test_a_profile_of_a_run(tiny_cfg: CfgNode) -> None:
    tiny_cfg.PROFILE.STEPS, tiny_cfg.PROFILE.START, tiny_cfg.DATASETS.TESTS = 1, 2, ()
    train(tiny_cfg)
    assert (Path(tiny_cfg.OUTPUT_DIR) / "profile-2.json").is_file()


def supervised(name: str, *opts: str) -> CfgNode:
    cfg = get_cfg()
    small = ["INPUT.SIZE_TRAIN", "[24, 24]", "INPUT.SIZE_TEST", "[24, 24]", "SOLVER.IMS_PER_BATCH", "8"]
    short = [
        "SOLVER.MAX_EPOCH",
        "1",
        "DATALOADER.ITERS_PER_EPOCH",
        "2",
        "TEST.EVAL_START",
        "False",
        "MODEL.BACKBONE.PRETRAIN",
        "False",
    ]
    data = ["DATASETS.NAMES", "('DN348',)", "DATASETS.TESTS", "('DN348',)", "DATALOADER.NUM_INSTANCE", "2"]
    merge_with_suggestions(cfg, ROOT / "configs" / "DNMini" / f"{name}.yml", [*small, *short, *data, *opts])
    return cfg


TINY = ("MODEL.BACKBONE.NAME", "build_tiny_backbone", "MODEL.BACKBONE.FEAT_DIM", "16")


@pytest.mark.parametrize(("name", "encoder"), [("bot", TINY), ("agw", ()), ("sbs", TINY)])
def test_supervised_baselines_train_and_evaluate(
    name: str, encoder: tuple[str, ...], tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    early = ("SOLVER.FREEZE_ITERS", "1", "SOLVER.WARMUP_ITERS", "1")
    trainer = CrossDomainTrainer(
        supervised(f"supervised-{name}", *encoder, *early, "OUTPUT_DIR", str(tmp_path))
    )
    before = {key: p.detach().clone() for key, p in trainer.bare_model.named_parameters()}
    trainer.train()
    trained = {key: p for key, p in trainer.bare_model.named_parameters() if p.requires_grad}
    assert trained
    assert [key for key, p in trained.items() if torch.equal(p, before[key])] == []
    assert set(trainer._last_eval_results["DN348"]) >= {"D2N", "N2D"}


def test_precise_batch_norm_in_a_supervised_run(
    tiny_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    precise = [
        "TEST.PRECISE_BN.ENABLED",
        "True",
        "TEST.PRECISE_BN.DATASET",
        "DN348",
        "TEST.PRECISE_BN.NUM_ITER",
        "3",
    ]
    tiny = [
        "MODEL.BACKBONE.NAME",
        "build_tiny_backbone",
        "MODEL.BACKBONE.FEAT_DIM",
        "16",
        "DATASETS.TESTS",
        "()",
    ]
    plain, exact = (
        train(
            supervised("supervised-bot", *tiny, "OUTPUT_DIR", str(tmp_path / folder), *extra)
        ).bare_model.state_dict()
        for folder, extra in (("a", []), ("b", precise))
    )
    different = {key for key in plain if not torch.equal(plain[key], exact[key])}
    assert different
    assert all("running_" in key or "num_batches" in key for key in different)


def test_scripts_get_our_predictor(as_fastreid: None) -> None:
    assert issubclass(fastreid.engine.DefaultPredictor, Predictor)


def test_a_run_without_a_folder_writes_nothing(
    tiny_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tiny_cfg.OUTPUT_DIR = ""
    trainer = train(tiny_cfg)
    assert trainer.iter == trainer.max_iter and trainer._last_eval_results["DN348"]["D2N"]["mAP"] > 0
    assert list((tmp_path / "here").iterdir()) == []
