"""Image-text alignment in stage 2 of Bridging Day and Night (Eq. 9)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.losses.image_text import batch_text_alignment, instance_contrast
from ...functional.types import Domain
from ...runtime.sections import Share
from ..batch import BatchFeatures
from ..clip.image_tower import unit_parts
from ..clip.prompts import KeptPrompts, PromptLearner, join_kept, keep_prompts
from ..clip.text_tower import ClipTextTower
from ..parts import Parts
from .base import LOSS_HEAD_REGISTRY, LossHead, Schedule


@LOSS_HEAD_REGISTRY.register()
class ImageText(LossHead):
    """Images against the text features of their prompts, which stage 1 has learned and which stay frozen.

    The prompts and the text tower are set by `prepare`; they are not part of ``state_dict``, since stage 1 has its own
    file.

    Args:
        weight: Piecewise constant over the epochs.
        alignment: "cluster" classifies an image by the text centroids of the clusters in the batch (Eq. 9);
            "instance" contrasts each image with its own text (Eq. 2-3, temperature 1), a row of the paper's Table 4.
        smoothing: Of the labels in Eq. 9.
        bias_input: What the bias net gets (T4): "before" the features before the necks, each part of unit length, as
            in stage 1; "after" unit features from behind the necks; "as_released" those as they are, of length ~36.
        through_text: As released: gradient also flows image -> bias net -> text tower (T5). False: texts are
            constants of a step.
    """

    stages = ("LearnPrompts",)

    def __init__(
        self,
        *,
        weight: Schedule = ((1, 1.0),),
        alignment: Literal["cluster", "instance"] = "cluster",
        smoothing: Share = 0.1,
        bias_input: Literal["before", "after", "as_released"] = "before",
        through_text: bool = False,
    ) -> None:
        super().__init__(weight=weight)
        self.alignment = alignment
        self.smoothing = smoothing
        self.bias_input = bias_input
        self.through_text = through_text
        # In a list, so that they are not sub-modules: neither trained nor saved with the model.
        self._learned: list[tuple[PromptLearner | KeptPrompts, ClipTextTower]] = []

    @classmethod
    def from_config(cls, cfg: Any) -> ImageText:
        backbone, heads = cfg.MODEL.BACKBONE.NAME, cfg.MODEL.HEADS.NAME
        if backbone != "build_clip_vit_backbone" or heads != "ClipNeckHead":
            raise ValueError(
                f"MODEL.LOSSES.NAME has ImageText with the backbone {backbone} and the head {heads}; "
                "it needs build_clip_vit_backbone and ClipNeckHead."
            )
        head = super().from_config(cfg)
        assert isinstance(head, ImageText)
        return head

    def prepare(self, prompts: PromptLearner | KeptPrompts, text: ClipTextTower) -> None:
        """Set the result of stage 1; both are on the model's device."""
        prompts.requires_grad_(False)
        self._learned = [(prompts, text)]

    def forward(self, batch: BatchFeatures, parts: Parts) -> Tensor:
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part = batch.of(domain)
            if len(part.targets) > 0:
                total = total + self._one_domain(part)
        return total

    def _one_domain(self, part: BatchFeatures) -> Tensor:
        texts = self.texts(part)
        # In the feature the projection follows the class token, see `ClipNeckHead`.
        images = part.features[:, -texts.shape[1] :]
        if self.alignment == "cluster":
            return batch_text_alignment(images, texts, part.targets, smoothing=self.smoothing)
        i2t, t2i = instance_contrast(F.normalize(images.float(), dim=1), texts, part.indices)
        return i2t + t2i

    def texts(self, part: BatchFeatures) -> Tensor:
        """``(B, P)`` float32 text features of the images' prompts, not normalised.

        Raises:
            RuntimeError: `prepare` was not called.
        """
        if not self._learned:
            raise RuntimeError("ImageText has no prompts; the stage LearnPrompts must be finished before.")
        prompts, text = self._learned[0]
        with torch.set_grad_enabled(self.through_text and torch.is_grad_enabled()):
            return prompts.text_features(text, part.indices, self._inputs(part, text.output_dim)).float()

    def _inputs(self, part: BatchFeatures, projection: int) -> Tensor:
        if self.bias_input == "before":
            return unit_parts(part.pooled.float(), (part.pooled.shape[1] - projection, projection))
        return part.unit if self.bias_input == "after" else part.features

    def replay_state(self, indices: Tensor) -> dict[str, Any]:
        """The prompts of the batch's images."""
        prompts = self._learned[0][0] if self._learned else None
        return keep_prompts(prompts, indices) if isinstance(prompts, PromptLearner) else {}

    def load_replay_state(self, states: list[dict[str, Any]], cfg: Any) -> None:
        states = [state for state in states if state]
        if states:
            self.prepare(*join_kept(states, cfg))
