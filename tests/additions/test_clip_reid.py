"""CLIP-ReID as an addition: a stage of its own learns a prompt per identity, a loss head classifies by their texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import SeenLosses, cut_and_resumed, same, train, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.losses.image_text import instance_contrast
from dnreid_plugins.runtime.config_files import ConfigError
from dnreid_plugins.runtime.weight_files import read_weight_file

ADDITIONS = ("clip_reid",)
FILE = "stage_identity_prompts.pth"


class PowerCutError(Exception):
    """Stands for a power cut."""


def test_the_contrast_of_two_identities() -> None:
    """The released stage's loss by hand, on unit rows and temperature 1; copies of an identity are positives."""
    losses = instance_contrast(torch.eye(2), torch.eye(2), torch.tensor([0, 1]))
    assert [float(loss) for loss in losses] == pytest.approx([0.31326, 0.31326], abs=1e-5)


def test_the_stage_learns_and_hands_its_texts_to_the_head(
    cfg: CfgNode, addition: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, trainer = SeenLosses(), CrossDomainTrainer(cfg)
    stages = [
        hook
        for hook in trainer._hooks
        if isinstance(hook, addition["learn_identity_prompts"].LearnIdentityPrompts)
    ]
    assert len(stages) == 1 and type(stages[0]).__name__ == "LearnIdentityPrompts"
    contrasts: list[float] = []

    def contrast(*args: Any, **kwargs: Any) -> Any:
        losses = instance_contrast(*args, **kwargs)
        contrasts.append(float(sum(losses).detach()))
        return losses

    monkeypatch.setattr(addition["learn_identity_prompts"], "instance_contrast", contrast)
    trainer.register_hooks([seen])
    trainer.resume_or_load()
    trainer.train()
    assert len(contrasts) == 9 and sum(contrasts[6:]) < sum(contrasts[:3])  # three epochs of three steps
    names = ["loss_identitytext", "loss_prototypeclassifier", "loss_tripletloss"]
    assert all(sorted(one) == names for one in seen.losses)
    head = trainer.parts.losses["IdentityText"]
    every = torch.arange(6)
    with torch.no_grad():
        assert torch.equal(head.texts, stages[0].texts(every)) and head.texts.shape == (6, 64)
    assert head.texts.unique(dim=0).shape[0] == 6 and not head.texts.requires_grad


def test_a_run_resumes_inside_an_epoch_bit_exactly(cfg: CfgNode) -> None:
    whole = train(cfg)
    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, 6)
    assert same(weights(resumed), weights(whole))
    assert resumed._last_eval_results == whole._last_eval_results


@pytest.mark.parametrize(("step", "kept"), [(2, False), (5, True)])
def test_a_cut_inside_the_stage_loses_nothing(
    cfg: CfgNode, addition: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, step: int, kept: bool
) -> None:
    whole = weights(train(cfg))
    cfg.OUTPUT_DIR += "-cut"
    stage = addition["learn_identity_prompts"].LearnIdentityPrompts
    train_step, count = stage.train_step, []

    def dying(self: Any, batch: torch.Tensor) -> None:
        if len(count) == step:
            raise PowerCutError
        count.append(step)
        train_step(self, batch)

    with monkeypatch.context() as patch, pytest.raises(PowerCutError):
        patch.setattr(stage, "train_step", dying)
        train(cfg)
    assert (Path(cfg.OUTPUT_DIR) / FILE).is_file() == kept
    assert same(weights(train(cfg, resume=True)), whole)


def test_another_run_takes_the_finished_stage(
    cfg: CfgNode, addition: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = weights(train(cfg))
    file = Path(cfg.OUTPUT_DIR) / FILE
    assert read_weight_file(file)["finished"]
    cfg.IDENTITY_PROMPTS.WEIGHTS = str(file)
    cfg.OUTPUT_DIR += "-second"
    monkeypatch.delattr(addition["learn_identity_prompts"].LearnIdentityPrompts, "train_step")
    assert same(weights(train(cfg)), whole)
    cfg.IDENTITY_PROMPTS.TEMPLATE = "A daytime photo of a {} vehicle."
    with pytest.raises(ValueError, match=r"was made with different IDENTITY_PROMPTS\.TEMPLATE"):
        train(cfg)


def test_wrong_keys_are_refused_before_any_image_is_read(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", "nowhere")
    cfg.LABELS.SOURCE = "DomainClusters"
    with pytest.raises(ConfigError, match=r"LABELS\.SOURCE is 'DomainClusters'; prompts of identities need"):
        CrossDomainTrainer(cfg)
    cfg.IDENTITY_PROMPTS.LR = -1.0
    with pytest.raises(ConfigError, match=r"IDENTITY_PROMPTS\.LR is -1\.0; it must be above 0"):
        CrossDomainTrainer(cfg)


def test_a_bad_batch_replays(replays: Callable[[str, int], None]) -> None:
    replays("TripletLoss", 6)
