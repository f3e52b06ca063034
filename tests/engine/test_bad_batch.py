"""NaN and infinity: the run stops with the reason, keeps the batch, and the batch can be replayed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import SeenLosses
from torch import nn

from dnreid_plugins.engine.bad_batch import load_bad_batch, rebuild_model, replay
from dnreid_plugins.engine.epoch_state import generator_state
from dnreid_plugins.engine.step import NonFiniteLossError, StepTrainer
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.modeling.clip.prompts import join_kept
from dnreid_plugins.runtime.weight_files import WeightFileError
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
    head = trainer.bare_model.parts.losses[name]
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
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    trainer.register_hooks([seen])
    break_head(trainer, "MAA", 6, float("inf"))
    with pytest.raises(NonFiniteLossError, match="loss_maa is inf at iteration 6"):
        trainer.train()
    content = load_bad_batch([Path(cfg.OUTPUT_DIR) / "bad_batch.pt"])
    assert content["iteration"] == 6 and content["losses"]["loss_maa"] == float("inf")
    reports = {report.name: report for report in replay(content)}
    assert list(reports) == ["loss_clusternce", "loss_maa", "loss_dgm"]
    for name in ("loss_clusternce", "loss_dgm"):
        assert reports[name].loss == seen.losses[-1][name].item()
    for report in reports.values():
        assert report.gradient_at_weights > 0 and report.gradient_at_features > 0
    weights = rebuild_model(content).state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in content["model"].items())


@pytest.fixture
def bridging(tiny_bridging_cfg: CfgNode) -> CfgNode:
    tiny_bridging_cfg.TEST.EVAL_START = False
    return tiny_bridging_cfg


def bridging_run(cfg: CfgNode) -> dict[str, torch.Tensor]:
    """The losses of the step in which CPML breaks, in the middle of the second epoch."""
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    trainer.register_hooks([seen])
    break_head(trainer, "CPML", 6, float("nan"))
    with pytest.raises(NonFiniteLossError, match="loss_cpml is nan at iteration 6"):
        trainer.train()
    return seen.losses[-1]


@pytest.mark.parametrize("pretrained", [True, False])
def test_a_kept_batch_with_prompts_and_classifiers_replays_to_the_same_losses(
    bridging: CfgNode, pretrained: bool
) -> None:
    """Of the prompts the file has the batch's rows only; the classifiers have trained since the epoch began."""
    bridging.MODEL.BACKBONE.PRETRAIN = pretrained
    if not pretrained:
        bridging.MODEL.BACKBONE.CLIP.PRETRAINED = ""
    seen = bridging_run(bridging)
    content = load_bad_batch([Path(bridging.OUTPUT_DIR) / "bad_batch.pt"])
    (prompts,) = content["parts"]["ImageText"]
    assert len(prompts["tokens"]) == len(content["batch"]["indices"].unique())
    torch.manual_seed(99)
    reports = {report.name: report.loss for report in replay(content)}
    assert list(reports) == ["loss_clusternce", "loss_prototypeclassifier", "loss_imagetext", "loss_cpml"]
    for name in list(reports)[:3]:
        assert reports[name] == seen[name].item()


def test_prompts_of_several_processes_become_one_table(bridging: CfgNode) -> None:
    seen = bridging_run(bridging)
    path = Path(bridging.OUTPUT_DIR) / "bad_batch.pt"
    whole = torch.load(path, weights_only=True)
    prompts = whole["parts"]["ImageText"]
    for number in range(2):  # images 0, 2, ... and 1, 2, 3, ...; those in both must not count twice
        own = torch.arange(len(prompts["indices"])) % (2 - number) == 0
        part = {key: prompts[key][own] for key in ("indices", "domains", "tokens")}
        batch = {key: value[number::2] for key, value in whole["batch"].items()}
        content = {**whole, "batch": batch, "parts": {**whole["parts"], "ImageText": {**prompts, **part}}}
        torch.save(content, path.with_name(f"part{number}.pt"))
    joined = load_bad_batch([path.with_name("part0.pt"), path.with_name("part1.pt")])
    kept, _ = join_kept(joined["parts"]["ImageText"], bridging)
    assert torch.equal(kept.indices, prompts["indices"])
    assert torch.equal(kept.prompts.domains, prompts["domains"])
    assert torch.equal(kept.prompts.tokens.weight, prompts["tokens"])
    reports = {report.name: report.loss for report in replay(joined)}
    assert reports["loss_imagetext"] == pytest.approx(seen["loss_imagetext"].item())


def test_the_generators_are_kept_as_they_were_before_the_forward_pass(cfg: CfgNode) -> None:
    trainer = CrossDomainTrainer(cfg)
    forward, before = trainer.bare_model.forward, []

    def drawing(batch: Any) -> Any:
        if trainer.bare_model.training:
            before.append(generator_state())
            torch.rand(1), random.random()
        return forward(batch)

    trainer.bare_model.forward = drawing
    break_head(trainer, "DGM", 1, float("nan"))
    with pytest.raises(NonFiniteLossError):
        trainer.train()
    kept = load_bad_batch([Path(cfg.OUTPUT_DIR) / "bad_batch.pt"])["generators"]
    assert torch.equal(kept["torch"], before[-1]["torch"]) and kept["python"] == before[-1]["python"]


def test_a_batch_goes_to_the_models_device() -> None:
    """The device "meta" stands for a GPU that is not the loader's."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1, device="meta"))

        def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
            assert {k: v.device.type for k, v in batch.items() if isinstance(v, torch.Tensor)} == {
                "images": "meta",
                "indices": "meta",
                "targets": "meta",
            }
            raise StopIteration

    model = Model()
    batch = {"images": torch.zeros(2, 3), "indices": torch.tensor([1, 0]), "img_paths": ["a", "b"]}
    trainer = StepTrainer(model, [batch], torch.optim.SGD(model.parameters(), lr=1.0))
    trainer.pseudo_labels = torch.tensor([4, 5])
    with pytest.raises(StopIteration):
        trainer.run_step()
    assert trainer.last_paths == ["a", "b"]


def test_a_gradient_that_is_not_finite_stops_before_the_step(cfg: CfgNode) -> None:
    """sqrt(0) is finite, its gradient is not."""
    trainer = CrossDomainTrainer(cfg)
    head = trainer.bare_model.parts.losses["MAA"]
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
    run_step = trainer.run_step

    def step() -> None:
        if trainer.iter == 2:
            with torch.no_grad():
                next(trainer.bare_model.parameters()).fill_(float("nan"))
        run_step()

    trainer.run_step = step  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match="of 16 features are already NaN or infinite"):
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
    with pytest.raises(WeightFileError, match="is not a saved batch"):
        load_bad_batch([tmp_path / "other.pt"])
    with pytest.raises(SystemExit, match="error: There is no weight file"):
        replay_main([str(tmp_path / "absent.pt")])
