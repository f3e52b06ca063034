"""The three blocks of DNDM, day-night dual-domain modulation: glare, structure, attention of the identity.

Chen et al., CVPR 2024, as its released code computes them; where that code does something else than it says, there is
``as_released``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...functional.modulation import (
    LUMINANCE,
    class_attention,
    enhance_structure,
    glare_mask,
    partner_attention,
    pooled_to,
)
from ...runtime.sections import NotNegative
from ..gather import share_rows
from .base import BLOCK_REGISTRY, Block, Place


@BLOCK_REGISTRY.register()
class GlareSuppression(Block):
    """``x (1 - s/2)`` with ``s = sigmoid(relu(w . [x; mask]))``, where the mask shows the glare in night images.

    The mask is computed from the image as the network gets it, so it is cropped, mirrored and erased with it, at test
    time and in an export too. The released code takes it from the image before augmentation. By day it is 0.

    In train mode gives ``"glare"``: ``(B, h, w)`` float32, the logits ``relu(w . [x; mask])`` of s.

    Args:
        after: Sub-modules behind which it stands; the stem's last layer.
        threshold: A pixel is bright above this luminance, in 0..255.
        as_released: Luminance with the weights of red and blue exchanged.
    """

    gives = ("glare",)

    def __init__(
        self,
        *,
        after: Sequence[str] = ("maxpool",),
        threshold: NotNegative = 220.0,
        as_released: bool = False,
        place: Place,
    ) -> None:
        super().__init__(after=after, place=place)
        self.threshold = threshold
        self.luminance = LUMINANCE[::-1] if as_released else LUMINANCE
        self.weigh = nn.Conv2d(place.channels + 1, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = torch.relu(self.weigh(torch.cat([x, self.mask(x)], dim=1)))
        if self.training:
            self.running.outputs["glare"] = logits[:, 0].float()
        return x - 0.5 * x * torch.sigmoid(logits)

    def mask(self, x: Tensor) -> Tensor:
        """``(B, 1, h, w)`` at the size of the map ``x``, 1 = glare."""
        images = self.running.context.images
        shown = glare_mask(images, threshold=self.threshold, weights=self.luminance)
        night = self.running.domains(x.shape[0], x.device).view(-1, 1, 1, 1)
        return (pooled_to(shown, (x.shape[2], x.shape[3])) * night).to(x.dtype)


@BLOCK_REGISTRY.register()
class StructureEnhancement(Block):
    """``0.9 x + 0.25 relu(mean of the 24 neighbours - x)``: pixels that are darker than what surrounds them gain.

    Args:
        after: Sub-modules behind which it stands; the last layer of each stage.
    """

    def __init__(self, *, after: Sequence[str] = (), place: Place) -> None:
        super().__init__(after=after, place=place)

    def forward(self, x: Tensor) -> Tensor:
        return enhance_structure(x)


@BLOCK_REGISTRY.register()
class ClassAttention(Block):
    """``x (1 + gain a_partner + gain a)``: attention to an image's class, exchanged between the domains in training.

    ``a`` is the map of `class_attention` with the identity classifier; ``a_partner`` its mean over the images of the
    batch, of all processes, with the same label in the other domain. Policy for an image without such a partner: it
    keeps its own term alone. At test time, where labels are unknown, ``a_partner`` is ``a``.

    Args:
        after: Sub-modules behind which it stands; the last layer of each stage.
        gain: Of each of the two terms.
    """

    reads = ("classifier",)

    def __init__(self, *, after: Sequence[str] = (), gain: NotNegative = 0.05, place: Place) -> None:
        super().__init__(after=after, place=place)
        self.gain = gain
        self.project = nn.Linear(place.channels, place.width, bias=False)
        nn.init.normal_(self.project.weight, std=0.001)

    @classmethod
    def from_config(cls, cfg: Any, place: Place) -> Block:
        if cfg.MODEL.DUAL_STREAM.SHARED_BN == "separate":
            raise ValueError(
                "MODEL.DUAL_STREAM.SHARED_BN is 'separate', but ClassAttention needs both domains in one pass; set it "
                "'joint' or 'frozen'."
            )
        return super().from_config(cfg, place)

    def forward(self, x: Tensor) -> Tensor:
        own = class_attention(x, self.project.weight, self.running.context.known["classifier"])
        partner = self._partner(own) if self.training else own
        return x + x * (self.gain * (own + partner))[:, None]

    def _partner(self, own: Tensor) -> Tensor:
        labels = self.running.context.labels
        if labels is None:
            raise ValueError("ClassAttention got no labels in train mode; give them in the `Context`.")
        domains = self.running.domains(own.shape[0], own.device)
        known = share_rows(torch.stack([labels, domains], dim=1))
        return partner_attention(labels, domains, known[:, 0], known[:, 1], share_rows(own))
