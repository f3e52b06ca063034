"""The first stage of CLIP-ReID: a prompt for every identity, learned from frozen CLIP features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dnreid_plugins.engine.stages.base import STAGE_REGISTRY, Stage, name_of_images
from dnreid_plugins.evaluation.extraction import extract_features
from dnreid_plugins.functional.losses.image_text import instance_contrast
from dnreid_plugins.modeling.clip.prompts import PromptLearner
from dnreid_plugins.modeling.clip.text_tower import ClipTextTower, build_text_tower
from dnreid_plugins.modeling.meta_arch import StudentFeatures
from dnreid_plugins.runtime.sections import Count, CountOrNone, Positive, configured, construct


@configured("IDENTITY_PROMPTS")
@dataclass(frozen=True, kw_only=True)
class IdentityPromptOptions:
    """How the prompts are learned.

    Args:
        epochs: Passes over the images; 0 = tokens stay random.
        batch_size: Images per step.
        lr: Learning rate of Adam.
        temperature: Divides the similarity of image and text.
        num_tokens: Learned tokens per identity.
        template: Sentence with one {} where they stand.
        weights: A finished stage of another run to use instead.
    """

    epochs: CountOrNone = 120
    batch_size: Count = 64
    lr: Positive = 3.5e-4
    temperature: Positive = 1.0
    num_tokens: Count = 4
    template: str = "A photo of a {} vehicle."
    weights: str = ""


@STAGE_REGISTRY.register()
class LearnIdentityPrompts(Stage):
    """Learns the prompts once and hands their texts to the parts that name the stage; section IDENTITY_PROMPTS."""

    file_name = "stage_identity_prompts.pth"
    reuse_key = "IDENTITY_PROMPTS.WEIGHTS"
    period = 1
    prompts: PromptLearner
    text: ClipTextTower

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        self.options: IdentityPromptOptions = construct(IdentityPromptOptions, self.cfg)
        self.reuse_from = self.options.weights
        self.data = trainer.train_data
        self.at, self.step = 1, 0

    @classmethod
    def check(cls, cfg: Any) -> None:
        construct(IdentityPromptOptions, cfg)
        if cfg.LABELS.SOURCE != "Identities":
            raise ValueError(
                f"LABELS.SOURCE is {cfg.LABELS.SOURCE!r}; prompts of identities need 'Identities'."
            )

    def prepare(self) -> dict[str, str]:
        self.text = build_text_tower(self.cfg).to(self.run.bare_model.device)
        self.ids = torch.unique(torch.as_tensor(self.data.images.true_ids), return_inverse=True)[1]
        self.prompts = PromptLearner(
            text=self.text,
            domains=torch.zeros(int(self.ids.max()) + 1),
            feature_dim=self.cfg.MODEL.BACKBONE.FEAT_DIM,
            seed=self.cfg.SEED,
            templates=(self.options.template,) * 2,
            num_tokens=self.options.num_tokens,
            bias_hidden=0,
            sparse=False,
        ).to(self.run.bare_model.device)
        images = name_of_images([item[0] for item in self.data.items])
        return {"training images": images, "IDENTITY_PROMPTS.TEMPLATE": self.options.template}

    def begin(self) -> bool:
        model = StudentFeatures(self.run.bare_model, feature="before")
        features = extract_features(model, self.data.inference_loader, progress="extract")
        self.images = features[:, -self.text.output_dim :]  # unit rows
        self.optimizer = torch.optim.Adam(self.prompts.parameters(), lr=self.options.lr)
        return self.options.epochs > 0

    def run_epoch(self) -> None:
        generator = torch.Generator().manual_seed(self.cfg.SEED * 1_000_003 + self.at)
        batches = torch.randperm(len(self.ids), generator=generator).split(self.options.batch_size)
        for batch in batches[self.step :]:
            self.train_step(batch)
            if self.stop_wanted() and self.step < len(batches):
                return
        self.at, self.step = self.at + 1, 0

    def train_step(self, batch: Tensor) -> None:
        """Contrast some images with the texts of their identities, in both directions."""
        ids = self.ids[batch].to(self.run.bare_model.device)
        images = self.images[batch].to(ids.device)
        losses = instance_contrast(images, self.texts(ids), ids, temperature=self.options.temperature)
        self.optimizer.zero_grad()
        sum(losses).backward()
        self.optimizer.step()
        self.step += 1

    def texts(self, ids: Tensor) -> Tensor:
        """``(B, P)`` features of the prompts of some identities, not normalised."""
        return self.prompts.text_features(self.text, ids, torch.empty(0)).float()

    @property
    def finished(self) -> bool:
        return self.at > self.options.epochs

    @property
    def epoch(self) -> int:
        return self.at

    def place(self) -> str:
        return f"epoch {self.at}, step {self.step}"

    def state(self, *, finished: bool) -> dict[str, Any]:
        result = {"prompts": self.prompts.state_dict()}
        if finished:
            return result
        return {**result, "optimizer": self.optimizer.state_dict(), "at": self.at, "step": self.step}

    def load_running(self, state: dict[str, Any]) -> None:
        self.prompts.load_state_dict(state["prompts"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.at, self.step = state["at"], state["step"]

    def load_result(self, state: dict[str, Any], file: Path) -> None:
        self.prompts.load_state_dict(state["prompts"])

    def tensors(self) -> Sequence[Tensor]:
        return list(self.prompts.parameters())

    def hand_over(self) -> None:
        every = torch.arange(self.prompts.num_images, device=self.run.bare_model.device)
        with torch.no_grad():
            texts = self.texts(every)
        for _, part in self.run.parts.named():
            if type(self).__name__ in part.stages:
                part.prepare(texts)
