"""Both stages of Bridging Day and Night by one trainer: run, stop, go on, reuse, refuse."""

from __future__ import annotations

import copy
import logging
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import cut_and_resumed, label_phase, same, train, weights
from torch import nn

from dnreid_plugins.engine.label_phase import LabelPhase
from dnreid_plugins.engine.stages import learn_prompts
from dnreid_plugins.engine.stages.base import Stage
from dnreid_plugins.engine.stages.learn_prompts import LearnPrompts, image_features_of
from dnreid_plugins.engine.stages.prompt_training import PromptStage
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.evaluation.extraction import extract_features
from dnreid_plugins.modeling.meta_arch import StudentFeatures
from dnreid_plugins.runtime.config_files import ConfigError
from dnreid_plugins.runtime.signals import Stopped

FULL = ["ClusterNCE", "PrototypeClassifier", "ImageText", "CPML"]


class PowerCutError(Exception):
    """Stands for a power cut."""


@pytest.fixture
def cfg(tiny_bridging_cfg: CfgNode) -> CfgNode:
    return tiny_bridging_cfg


def prompts_of(trainer: CrossDomainTrainer) -> Any:
    head: Any = trainer.bare_model.parts.losses["ImageText"]
    return head._learned[0][0]


def test_one_run_goes_through_both_stages(cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        trainer = train(cfg)
    assert "stage 1 epoch 3/3" in caplog.text and (Path(cfg.OUTPUT_DIR) / "stage1.pth").is_file()
    audit = [r.getMessage() for r in caplog.records if "audit, gradient" in r.getMessage()]
    assert audit and all("loss_imagetext" in line and "loss_cpml" in line for line in audit)
    assert "gradient exactly 0" not in caplog.text
    assert not torch.equal(prompts_of(trainer).tokens.weight, build_untrained(trainer).tokens.weight)
    assert trainer.bare_model.parts.losses["PrototypeClassifier"].day.shape[1] == 192


def build_untrained(trainer: CrossDomainTrainer) -> Any:
    from dnreid_plugins.modeling.clip.prompts import build_prompt_learner
    from dnreid_plugins.modeling.clip.text_tower import build_text_tower

    assert trainer.train_data is not None
    return build_prompt_learner(trainer.cfg, build_text_tower(trainer.cfg), trainer.train_data.images.domains)


def test_without_stage_1_the_prompts_are_random(cfg: CfgNode) -> None:
    cfg.PROMPT_STAGE.EPOCHS = 0
    trainer = train(cfg)
    assert torch.equal(prompts_of(trainer).tokens.weight, build_untrained(trainer).tokens.weight)
    assert not (Path(cfg.OUTPUT_DIR) / "stage1.pth").exists()


def test_stage_1_sees_the_features_before_the_necks(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(PromptStage, "run_epoch", lambda stage, _: _stop(seen, stage.features))
    with pytest.raises(PowerCutError):
        train(cfg)
    fresh = CrossDomainTrainer(cfg)
    assert fresh.train_data is not None
    expected = extract_features(
        StudentFeatures(fresh.bare_model, feature="before"), fresh.train_data.inference_loader
    )
    assert torch.equal(seen[0], expected) and torch.allclose(expected.norm(dim=1), torch.ones(len(expected)))


def _stop(seen: list[torch.Tensor], features: torch.Tensor) -> None:
    seen.append(features)
    raise PowerCutError


@pytest.mark.parametrize("epoch", [1, 2])
def test_a_cut_in_stage_1_loses_nothing(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    whole = weights(train(cfg))
    cfg.OUTPUT_DIR = str(tmp_path / "cut")
    step = PromptStage.train_step

    def dying(stage: PromptStage) -> dict[str, float]:
        if stage.epoch == epoch and stage.step == 1:
            raise PowerCutError
        return step(stage)

    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(PromptStage, "train_step", dying)
        train(cfg)
    assert (Path(cfg.OUTPUT_DIR) / "stage1.pth").is_file() == (epoch == 2)
    assert same(weights(train(cfg, resume=True)), whole)


def test_a_signal_in_stage_1_is_heard_after_the_step(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(train(cfg))
    cfg.OUTPUT_DIR = str(tmp_path / "cut")
    step = PromptStage.train_step

    def signalled(stage: PromptStage) -> dict[str, float]:
        if (stage.epoch, stage.step) == (2, 0):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(stage)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(PromptStage, "train_step", signalled)
        train(cfg)
    content = torch.load(Path(cfg.OUTPUT_DIR) / "stage1.pth", weights_only=True)
    assert (content["stage"]["epoch"], content["stage"]["step"]) == (2, 1)
    assert same(weights(train(cfg, resume=True)), whole)


@pytest.mark.parametrize(
    ("minutes", "expected"), [(0, [(2, False), (3, True)]), (1, [(1, False), (2, False), (3, True)])]
)
def test_stage_1_is_saved_in_its_period_when_time_is_up_and_at_its_end(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, minutes: int, expected: list[tuple[int, bool]]
) -> None:
    cfg.PROMPT_STAGE.CHECKPOINT_PERIOD, cfg.SOLVER.CHECKPOINT_MINUTES = 2, minutes
    saved, save, run_epoch = [], Stage._save, LearnPrompts.run_epoch

    def noted(stage: Stage, *, finished: bool) -> None:
        saved.append((stage.epoch - 1, finished))
        save(stage, finished=finished)
        assert stage._saved

    def slow_first_epoch(stage: LearnPrompts) -> None:
        run_epoch(stage)
        stage._last_time -= 61.0 if stage.epoch == 2 else 0.0

    monkeypatch.setattr(Stage, "_save", noted)
    monkeypatch.setattr(LearnPrompts, "run_epoch", slow_first_epoch)
    train(cfg)
    assert saved == expected


@pytest.mark.parametrize("iteration", [0, 2, 4, 6])
def test_a_cut_in_stage_2_loses_nothing(cfg: CfgNode, tmp_path: Path, iteration: int) -> None:
    """At 0 stage 1 is finished and no checkpoint is there yet; at 2 and 6 an epoch is under way."""
    whole = weights(train(cfg))
    cfg.OUTPUT_DIR = str(tmp_path / "cut")
    assert same(weights(cut_and_resumed(cfg, iteration)), whole)


def test_a_finished_stage_1_serves_other_runs(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = weights(train(cfg))
    cfg.PROMPT_STAGE.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "stage1.pth")
    cfg.OUTPUT_DIR = str(tmp_path / "second")
    monkeypatch.setattr(PromptStage, "__init__", lambda *a, **k: pytest.fail("stage 1 ran again"))
    assert same(weights(train(cfg)), first)


def of_other_weights(cfg: CfgNode, backbone: nn.Module) -> dict[str, str]:
    """What the prompts of an image tower depend on in which one weight is another one."""
    changed = copy.deepcopy(backbone)
    next(changed.parameters()).data.view(-1)[0] += 1
    return image_features_of(cfg, changed)


def test_prompts_of_other_images_or_sizes_are_refused(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(cfg)
    cfg.PROMPT_STAGE.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "stage1.pth")
    cfg.OUTPUT_DIR = str(tmp_path / "second")
    cfg.MODEL.PROMPT.NUM_TOKENS = 2
    with pytest.raises(ValueError, match=r"do not fit MODEL\.PROMPT"):
        train(cfg)
    templates = list(cfg.MODEL.PROMPT.TEMPLATES)
    cfg.MODEL.PROMPT.TEMPLATES = [templates[1], templates[0]]
    with pytest.raises(ValueError, match=r"made with different MODEL\.PROMPT\.TEMPLATES"):
        train(cfg)
    cfg.MODEL.PROMPT.TEMPLATES = templates
    cfg.MODEL.BACKBONE.PRETRAIN = False
    with pytest.raises(ValueError, match="made with different text-tower weights"):
        train(cfg)
    cfg.MODEL.BACKBONE.PRETRAIN = True
    statistics, cfg.MODEL.PIXEL_STD = cfg.MODEL.PIXEL_STD, [60.0, 60.0, 60.0]
    with pytest.raises(ValueError, match="made with different image size or statistics"):
        train(cfg)
    cfg.MODEL.PIXEL_STD = statistics
    with monkeypatch.context() as other:
        other.setattr(learn_prompts, "image_features_of", of_other_weights)
        with pytest.raises(ValueError, match="made with different image-tower weights"):
            train(cfg)
    monkeypatch.setattr(learn_prompts, "name_of_images", lambda paths: "72-other")
    with pytest.raises(ValueError, match="made with different training images"):
        train(cfg)
    cfg.PROMPT_STAGE.WEIGHTS = str(tmp_path / "nothing.pth")
    with pytest.raises(ValueError, match="correct the path"):
        train(cfg)


def test_a_resume_of_stage_1_checks_the_config(cfg: CfgNode) -> None:
    train(cfg)
    folder = Path(cfg.OUTPUT_DIR)
    for path in (*folder.glob("model_*.pth"), folder / "last_checkpoint"):
        path.unlink()
    cfg.INPUT.SIZE_TRAIN = cfg.INPUT.SIZE_TEST = [48, 48]
    with pytest.raises(ValueError, match=r"config changed since the checkpoint: INPUT\.SIZE_T"):
        train(cfg, resume=True)


def test_stage_2_without_the_file_of_stage_1_is_refused(cfg: CfgNode) -> None:
    train(cfg)
    (Path(cfg.OUTPUT_DIR) / "stage1.pth").unlink()
    with pytest.raises(ValueError, match="put it back"):
        train(cfg, resume=True)


def test_a_fresh_run_sets_an_old_stage_1_aside(cfg: CfgNode) -> None:
    train(cfg)
    train(cfg)
    assert (Path(cfg.OUTPUT_DIR) / "previous-001" / "stage1.pth").is_file()


def test_memory_of_the_optimizer_is_new_with_each_classifier(cfg: CfgNode) -> None:
    cfg.MODEL.LOSSES.NAME = FULL[:2]
    trainer = CrossDomainTrainer(cfg)
    seen: list[bool] = []
    phase = label_phase(trainer)

    def before_epoch() -> None:
        head: Any = trainer.bare_model.parts.losses["PrototypeClassifier"]
        before = head.day in trainer.optimizer.state
        LabelPhase.before_epoch(phase)
        seen.extend([before, head.day in trainer.optimizer.state])

    phase.before_epoch = before_epoch  # type: ignore[method-assign]
    trainer.train()
    assert seen == [False, False, True, False]


def test_clustering_before_the_necks(cfg: CfgNode) -> None:
    cfg.MODEL.LOSSES.NAME, cfg.CLUSTER.FEATURE, cfg.CLUSTER.FLIP = FULL[:2], "before", False
    trainer = CrossDomainTrainer(cfg)
    assert trainer.train_data is not None
    expected = extract_features(
        StudentFeatures(trainer.bare_model, feature="before"), trainer.train_data.inference_loader
    )
    assert torch.equal(label_phase(trainer).extract(), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["MODEL.HEADS.NAME", "NeckHead"], "needs build_clip_vit_backbone and ClipNeckHead"),
        (["CLUSTER.FEATURE", "middle"], "CLUSTER.FEATURE is 'middle'; it must be one of 'after', 'before'"),
        (["MODEL.LOSSES.CPML.VARIANT", "all"], "CPML.VARIANT is 'all'; it must be one of 'instance'"),
    ],
)
def test_wrong_settings_are_refused_before_the_first_epoch(
    cfg: CfgNode, changes: list[Any], message: str
) -> None:
    cfg.merge_from_list(changes)
    with pytest.raises((ConfigError, ValueError), match=message):
        train(cfg)
