"""Stage 1 of "Bridging Day and Night" inside a run: learn a prompt for every training image."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...evaluation.extraction import extract_features
from ...modeling.clip.prompts import PromptLearner, build_prompt_learner
from ...modeling.clip.text_tower import ClipTextTower, build_text_tower
from ...modeling.meta_arch import StudentFeatures
from ...runtime.agreement import fingerprint
from ...runtime.sections import check_keys, construct
from .base import STAGE_REGISTRY, Stage, name_of_images
from .prompt_options import PromptStageOptions
from .prompt_training import PromptStage

logger = logging.getLogger(__name__)


@STAGE_REGISTRY.register()
class LearnPrompts(Stage):
    """Learns the prompts once and passes them to the loss head ``ImageText``; sections MODEL.PROMPT, PROMPT_STAGE."""

    file_name = "stage1.pth"
    reuse_key = "PROMPT_STAGE.WEIGHTS"
    prompts: PromptLearner
    text: ClipTextTower
    stage: PromptStage

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        self.options = construct(PromptStageOptions, self.cfg, seed=self.cfg.SEED)
        self.reuse_from, self.period = self.options.weights, self.options.checkpoint_period
        self.images = trainer.train_data

    @classmethod
    def check(cls, cfg: Any) -> None:
        options = construct(PromptStageOptions, cfg)
        check_keys(PromptLearner, cfg)
        if options.weights and not os.path.isfile(options.weights):
            raise ValueError(f"PROMPT_STAGE.WEIGHTS {options.weights!r} does not exist; correct the path.")
        templates = cfg.MODEL.PROMPT.TEMPLATES
        if not isinstance(templates, (list, tuple)) or [str(one).count("{}") for one in templates] != [1, 1]:
            raise ValueError(
                f"MODEL.PROMPT.TEMPLATES is {templates!r}; it holds a sentence for day and one for night, each with "
                "one {} where the learned tokens stand."
            )
        if options.first_moment != "float32" and not cfg.MODEL.PROMPT.SPARSE:
            raise ValueError(
                f"PROMPT_STAGE.FIRST_MOMENT is {options.first_moment!r}, which the dense token table of "
                "MODEL.PROMPT.SPARSE False does not have; set one of them back."
            )

    def prepare(self) -> dict[str, str]:
        device = self.run.bare_model.device
        text = build_text_tower(self.cfg)
        made_for = prompts_made_for(self.cfg, text, name_of_images([item[0] for item in self.images.items]))
        if (
            self.run.iter == 0
        ):  # later the image tower is no longer the one whose features the prompts were learned on
            made_for |= image_features_of(self.cfg, self.run.bare_model.backbone)
        self.text = text.to(device)
        self.prompts = build_prompt_learner(self.cfg, text, self.images.images.domains).to(device)
        return made_for

    def begin(self) -> bool:
        if self.options.epochs == 0:
            return False
        model = StudentFeatures(self.run.bare_model, feature="before")
        self.stage = PromptStage(
            prompts=self.prompts,
            text=self.text,
            features=extract_features(model, self.images.inference_loader, progress="extract"),
            options=self.options,
            autocast=self._autocast(),
        )
        counts = torch.bincount(self.images.images.domains, minlength=2).tolist()
        logger.info(
            "Stage 1: %d prompts of %d day and %d night images, %d epochs of %d steps",
            *(sum(counts), *counts, self.options.epochs, self.stage.steps_per_epoch),
        )
        return True

    def run_epoch(self) -> None:
        self.stage.run_epoch(self.stop_wanted)

    @property
    def finished(self) -> bool:
        return self.stage.finished

    @property
    def epoch(self) -> int:
        return self.stage.epoch

    def place(self) -> str:
        return f"epoch {self.stage.epoch}, step {self.stage.step}"

    def state(self, *, finished: bool) -> dict[str, Any]:
        return {"prompts": self.prompts.state_dict()} if finished else self.stage.state_dict()

    def load_running(self, state: dict[str, Any]) -> None:
        self.stage.load_state_dict(state)

    def load_result(self, state: dict[str, Any], file: Path) -> None:
        try:
            self.prompts.load_state_dict(state["prompts"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"The prompts in {file} do not fit MODEL.PROMPT ({reason}); use the keys that they were made with."
            ) from error

    def tensors(self) -> Sequence[Tensor]:
        return list(self.prompts.parameters())

    def hand_over(self) -> None:
        self.run.bare_model.parts.losses["ImageText"].prepare(self.prompts, self.text)

    def _autocast(self) -> torch.dtype | None:
        amp, on_gpu = self.cfg.SOLVER.AMP, self.run.bare_model.device.type == "cuda"
        return getattr(torch, amp.DTYPE) if on_gpu and amp.ENABLED else None


def prompts_made_for(cfg: Any, text: ClipTextTower, images: str) -> dict[str, str]:
    """What prompts depend on: with another text tower, template or image list they are meaningless."""
    return {
        "training images": images,
        "text-tower weights": fingerprint(text.state_dict().values()),
        "MODEL.PROMPT.TEMPLATES": repr(list(cfg.MODEL.PROMPT.TEMPLATES)),
    }


def image_features_of(cfg: Any, backbone: nn.Module) -> dict[str, str]:
    """What the image features depend on that prompts are learned for; size and stride give the tower's positions."""
    pixels = [list(cfg.INPUT.SIZE_TEST), list(cfg.MODEL.PIXEL_MEAN), list(cfg.MODEL.PIXEL_STD)]
    return {
        "image-tower weights, stride or positions": fingerprint(backbone.state_dict().values()),
        "image size or statistics": repr(pixels),
    }
