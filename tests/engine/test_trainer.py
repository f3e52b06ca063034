"""The trainer: weights move, results are written, a resumed run ends as the undisturbed one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import cut_and_resumed, label_phase, same, train, weights

from dnreid_plugins.engine.solver.optimizer import OPTIMIZERS
from dnreid_plugins.engine.trainer import CrossDomainTrainer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_three_steps_of_every_optimizer_move_every_trainable_parameter(tiny_cfg: CfgNode, name: str) -> None:
    tiny_cfg.SOLVER.OPT = name
    tiny_cfg.SOLVER.MAX_EPOCH = 1
    tiny_cfg.SOLVER.STEPS = []
    tiny_cfg.DATALOADER.ITERS_PER_EPOCH = 3
    tiny_cfg.DATASETS.TESTS = ()
    trainer = CrossDomainTrainer(tiny_cfg)
    before = {key: p.detach().clone() for key, p in trainer.bare_model.named_parameters()}
    trainer.train()
    trained = [key for key, p in trainer.bare_model.named_parameters() if p.requires_grad]
    still = [
        key for key in trained if torch.equal(before[key], dict(trainer.bare_model.named_parameters())[key])
    ]
    assert trained and not still
    assert not [key for key, p in trainer.bare_model.named_parameters() if p.requires_grad and p.grad is None]


def test_results_hold_start_and_end_in_both_directions(tiny_cfg: CfgNode) -> None:
    train(tiny_cfg)
    results = json.loads((Path(tiny_cfg.OUTPUT_DIR) / "results.json").read_text())
    assert results["finished"] is True and results["epochs"] == 2 and results["seed"] == 0
    for block in (results["DN348"], results["start"]["DN348"]):
        assert set(block) >= {"D2N", "N2D"}
        for direction in ("D2N", "N2D"):
            metrics = block[direction]
            assert set(metrics) >= {"Rank-1", "Rank-5", "Rank-10", "mAP", "mINP"}
            assert all(0 <= metrics[key] <= 100 for key in ("Rank-1", "mAP", "mINP"))


def test_the_last_evaluation_reaches_metrics_json(tiny_cfg: CfgNode) -> None:
    trainer = train(tiny_cfg)
    rows = [
        json.loads(line) for line in (Path(tiny_cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()
    ]
    last = [row for row in rows if "DN348/D2N/mAP" in row]
    results = json.loads((Path(tiny_cfg.OUTPUT_DIR) / "results.json").read_text())
    assert last and last[-1]["DN348/D2N/mAP"] == pytest.approx(results["DN348"]["D2N"]["mAP"])
    assert trainer.iter == 8


def test_health_lines_say_what_was_clustered(tiny_cfg: CfgNode) -> None:
    train(tiny_cfg)
    lines = [
        json.loads(line) for line in (Path(tiny_cfg.OUTPUT_DIR) / "health.jsonl").read_text().splitlines()
    ]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert all(line["day/clusters"] >= 1 and "true/night/ARI" in line for line in lines)


def test_an_undefined_figure_is_null_on_the_health_line(tiny_cfg: CfgNode) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    # No similarity reaches this threshold, so that the matching is empty and has no precision.
    tiny_cfg.MODEL.LOSSES.NAME = ["ClusterNCE", "DGM"]
    tiny_cfg.merge_from_list(["MODEL.LOSSES.DGM.WEIGHT", [[1, 0.3]], "MODEL.LOSSES.DGM.THRESHOLD_START", 1.1])
    train(tiny_cfg)
    folder = Path(tiny_cfg.OUTPUT_DIR)
    health = [
        json.loads(line, parse_constant=refuse) for line in (folder / "health.jsonl").read_text().splitlines()
    ]
    assert health[-1]["DGM/edges"] == 0 and health[-1]["true/DGM/matching_precision"] is None
    for line in (folder / "metrics.json").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_the_same_seed_gives_the_same_bits_with_and_without_workers(
    tiny_cfg: CfgNode, tmp_path: Path
) -> None:
    first = weights(train(tiny_cfg))
    tiny_cfg.OUTPUT_DIR = str(tmp_path / "workers")
    tiny_cfg.DATALOADER.NUM_WORKERS = 2
    torch.rand(100)
    second = weights(train(tiny_cfg))
    tiny_cfg.OUTPUT_DIR = str(tmp_path / "other")
    tiny_cfg.SEED = 1
    third = weights(train(tiny_cfg))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], third[key]) for key in first)


def heads_of(cfg: CfgNode, names: list[str]) -> None:
    cfg.MODEL.LOSSES.NAME = names
    cfg.MODEL.LOSSES.DGM.WEIGHT = ((1, 0.3),)
    cfg.MODEL.LOSSES.DGM.ON_EMPTY = "keep_last"


@pytest.mark.parametrize("names", [["ClusterNCE"], ["ClusterNCE", "MAA", "DGM"]])
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_resumed_run_ends_bit_equal(tiny_cfg: CfgNode, tmp_path: Path, names: list[str], stop: int) -> None:
    """Checkpoints after every step and epoch; the run is cut before step ``stop`` and taken up again."""
    heads_of(tiny_cfg, names)
    whole = weights(train(tiny_cfg))
    reference = json.loads((Path(tiny_cfg.OUTPUT_DIR) / "results.json").read_text())

    tiny_cfg.OUTPUT_DIR = str(tmp_path / "cut")
    assert same(weights(cut_and_resumed(tiny_cfg, stop)), whole)
    results = json.loads((Path(tiny_cfg.OUTPUT_DIR) / "results.json").read_text())
    assert results["DN348"] == reference["DN348"] and results["start"] == reference["start"]


def test_a_resume_without_a_checkpoint_says_where_it_starts(
    tiny_cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = CrossDomainTrainer(tiny_cfg)
    trainer.resume_or_load(resume=True)
    assert (
        f"There is no checkpoint to resume in {tiny_cfg.OUTPUT_DIR}; starting at iteration 0." in caplog.text
    )


def test_resuming_under_another_config_is_refused(tiny_cfg: CfgNode) -> None:
    train(tiny_cfg)
    tiny_cfg.SOLVER.BASE_LR = 0.5
    trainer = CrossDomainTrainer(tiny_cfg)
    with pytest.raises(ValueError, match=r"SOLVER\.BASE_LR was 0\.01 and is now 0\.5"):
        trainer.resume_or_load(resume=True)


def test_a_domain_that_collapses_is_left_out_and_said(tiny_cfg: CfgNode, caplog: Any) -> None:
    """All night images equal: no cluster structure; policy "skip" goes on with day alone."""
    tiny_cfg.merge_from_list(["CLUSTER.ON_EMPTY", "skip", "CLUSTER.MIN_SAMPLES", 4, "CLUSTER.EPS", 0.2])
    trainer = CrossDomainTrainer(tiny_cfg)
    phase = label_phase(trainer)
    extract = phase.extract

    def scattered() -> torch.Tensor:
        features = extract()
        night = phase.images.domains == 1
        features[night] = torch.nn.functional.normalize(
            torch.randn(int(night.sum()), features.shape[1]), dim=1
        )
        return features

    phase.extract = scattered  # type: ignore[method-assign]
    trainer.resume_or_load()
    trainer.train()
    assert any("left out of this epoch" in record.message for record in caplog.records)
