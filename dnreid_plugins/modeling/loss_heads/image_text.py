"""Image-text alignment in stage 2 of Bridging Day and Night (Eq. 9)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.image_text import batch_text_alignment, instance_contrast
from ...functional.types import Domain
from ..batch import BatchFeatures
from ..memory import PrototypeMemory
from ..prompts import PromptLearner
from ..text import ClipTextTower
from .base import LOSS_HEAD_REGISTRY, LossHead

ALIGNMENTS = ("cluster", "instance")


@LOSS_HEAD_REGISTRY.register()
class ImageText(LossHead):
    """Images against the text features of their prompts, which stage 1 has learned and which stay frozen.

    The prompts and the text tower are handed over by `prepare`; they are no part of ``state_dict``.

    Args:
        weight: see `LossHead`.
        alignment: ``"cluster"`` classifies an image by the text centroids of the clusters in the batch (Eq. 9);
            ``"instance"`` contrasts each image with its own text (Eq. 2-3, temperature 1), a row of the paper's
            Table 4.
        smoothing: of the labels in Eq. 9.
        unit_input: the bias net sees unit features as in stage 1; False: as released, neck features of length
            ~36 (T4).
        through_text: let gradient also flow image -> bias net -> text tower, as released (T5); False: texts are
            constants of the step.
    """

    def __init__(
        self,
        *,
        weight: Sequence[Sequence[float]] = ((1, 1.0),),
        alignment: str = "cluster",
        smoothing: float = 0.1,
        unit_input: bool = True,
        through_text: bool = False,
    ) -> None:
        super().__init__(weight=weight)
        if alignment not in ALIGNMENTS:
            raise ValueError(f"MODEL.LOSSES.IMAGETEXT.ALIGNMENT is {alignment!r}; it is one of {ALIGNMENTS}.")
        self.alignment = alignment
        self.smoothing = smoothing
        self.unit_input = unit_input
        self.through_text = through_text
        # In a list, so that they are no sub-modules: neither trained nor saved with the model.
        self._stage_1: list[tuple[PromptLearner, ClipTextTower]] = []

    def prepare(self, prompts: PromptLearner, text: ClipTextTower) -> None:
        """Take over what stage 1 has learned; both on the model's device."""
        prompts.requires_grad_(False)
        self._stage_1 = [(prompts, text)]

    def forward(self, batch: BatchFeatures, memory: PrototypeMemory) -> Tensor:
        total = batch.features.sum() * 0.0
        for domain in Domain:
            part = batch.of(domain)
            if len(part.targets) > 0:
                total = total + self._one_domain(part)
        return total

    def _one_domain(self, part: BatchFeatures) -> Tensor:
        texts = self.texts(part)
        # The projection stands behind the class token in the feature, see `ClipNeckHead`.
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
        if not self._stage_1:
            raise RuntimeError("ImageText has no prompts; the trainer hands them over before the first step.")
        prompts, text = self._stage_1[0]
        with torch.set_grad_enabled(self.through_text and torch.is_grad_enabled()):
            inputs = part.unit if self.unit_input else part.features
            return prompts.text_features(text, part.indices, inputs).float()
