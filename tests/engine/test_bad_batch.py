"""NaN and infinity: the run stops with the reason, keeps the batch, and the batch can be replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode

from dnreid_plugins.engine.bad_batch import load_bad_batch, rebuild_model, replay
from dnreid_plugins.engine.step import NonFiniteLossError
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.modeling.weight_files import WeightFileError
from tools.replay_batch import main as replay_main

HEADS = ["ClusterNCE", "MAA", "DGM"]


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    tiny_cfg.MODEL.LOSSES.NAME = HEADS
    tiny_cfg.MODEL.LOSSES.DGM.WEIGHT = ((1, 0.3),)
    tiny_cfg.TEST.EVAL_START = False
    return tiny_cfg


def break_head(trainer: CrossDomainTrainer, name: str, iteration: int, factor: float) -> None:
    """The loss of one head times ``factor`` from ``iteration`` on."""
    head = trainer.bare_model.loss_heads[name]
    forward = head.forward

    def broken(*args: Any) -> torch.Tensor:
        loss = forward(*args)
        return loss * factor if trainer.iter >= iteration else loss

    head.forward = broken


def broken_run(cfg: CfgNode, name: str, iteration: int, factor: float = float("nan")) -> CrossDomainTrainer:
    trainer = CrossDomainTrainer(cfg)
    break_head(trainer, name, iteration, factor)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train()
    trainer.error = str(caught.value)  # type: ignore[attr-defined]
    return trainer


def test_the_sentence_names_head_iteration_rate_scale_and_images(cfg: CfgNode) -> None:
    trainer = broken_run(cfg, "DGM", 5)
    text = trainer.error  # type: ignore[attr-defined]
    assert "loss_dgm is nan at iteration 5 (learning rate 0.001, loss scale off)" in text
    assert "first images are ['" in text and ".png" in text
    assert "the features themselves are finite" in text and "bad_batch.pt for tools/replay_batch.py" in text


def test_the_kept_batch_replays_to_the_same_losses(cfg: CfgNode, tmp_path: Path) -> None:
    seen: dict[str, torch.Tensor] = {}
    trainer = CrossDomainTrainer(cfg)
    trainer.step_trainer.before_backward.append(lambda losses: seen.update(losses))
    break_head(trainer, "MAA", 6, float("inf"))
    with pytest.raises(NonFiniteLossError, match="loss_maa is inf at iteration 6"):
        trainer.train()
    content = load_bad_batch([Path(cfg.OUTPUT_DIR) / "bad_batch.pt"])
    assert content["iteration"] == 6 and content["losses"]["loss_maa"] == float("inf")
    reports = {report.name: report for report in replay(content)}
    assert list(reports) == ["loss_clusternce", "loss_maa", "loss_dgm"]
    for name in ("loss_clusternce", "loss_dgm"):
        assert reports[name].loss == seen[name].item()
    for report in reports.values():
        assert report.gradient_at_weights > 0 and report.gradient_at_features > 0
    weights = rebuild_model(content).state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in content["model"].items())


def test_a_gradient_that_is_not_finite_stops_before_the_step(cfg: CfgNode) -> None:
    """sqrt(0) is finite, its gradient is not."""
    trainer = CrossDomainTrainer(cfg)
    head = trainer.bare_model.loss_heads["MAA"]
    head.forward = lambda batch, memory: (batch.features.sum() * 0.0).sqrt()
    before = {key: value.clone() for key, value in trainer.bare_model.named_parameters()}
    with pytest.raises(
        NonFiniteLossError, match="All losses are finite, but the gradient is NaN .* in 10 tensors"
    ):
        trainer.train()
    assert all(torch.equal(value, before[key]) for key, value in trainer.bare_model.named_parameters())
    content = load_bad_batch([Path(cfg.OUTPUT_DIR) / "bad_batch.pt"])
    assert all(value == value for value in content["losses"].values())


def test_weights_that_are_not_finite_are_told_from_a_bad_loss(cfg: CfgNode) -> None:
    trainer = CrossDomainTrainer(cfg)
    trainer.step_trainer.before_backward.append(lambda losses: None)
    run_step = trainer.run_step

    def step() -> None:
        if trainer.iter == 2:
            with torch.no_grad():
                next(trainer.bare_model.parameters()).fill_(float("nan"))
        run_step()

    trainer.run_step = step  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match="of 16 features are NaN or infinite already"):
        trainer.train()


def test_the_files_of_several_processes_become_one_batch(cfg: CfgNode) -> None:
    broken_run(cfg, "DGM", 1)
    path = Path(cfg.OUTPUT_DIR) / "bad_batch.pt"
    content = torch.load(path, weights_only=True)
    half = {key: value[::2] for key, value in content["batch"].items()}
    rest = {key: value[1::2] for key, value in content["batch"].items()}
    for number, batch in enumerate((half, rest)):
        torch.save({**content, "batch": batch}, path.with_name(f"part{number}.pt"))
    joined = load_bad_batch([path.with_name("part0.pt"), path.with_name("part1.pt")])["batch"]
    assert joined["domains"].tolist() == sorted(joined["domains"].tolist())
    assert sorted(joined["indices"].tolist()) == sorted(content["batch"]["indices"].tolist())
    one = joined["indices"].tolist().index(int(content["batch"]["indices"][3]))
    assert torch.equal(joined["images"][one], content["batch"]["images"][3])
    assert joined["img_paths"][one] == content["batch"]["img_paths"][3]


def test_the_tool_prints_every_head(cfg: CfgNode, capsys: pytest.CaptureFixture[str]) -> None:
    broken_run(cfg, "DGM", 1)
    replay_main([str(Path(cfg.OUTPUT_DIR) / "bad_batch.pt"), "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "loss_dgm is nan at iteration 1" in printed and "gradient at features" in printed
    assert all(f"loss_{name.lower()}" in printed for name in HEADS) and printed.count(".png") >= 16


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(WeightFileError, match="holds no kept batch"):
        load_bad_batch([tmp_path / "other.pt"])
    with pytest.raises(SystemExit, match="error: There is no weight file"):
        replay_main([str(tmp_path / "absent.pt")])
