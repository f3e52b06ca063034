"""What the modules inside an encoder may know of the running pass besides their input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..functional.types import Domain


@dataclass(frozen=True)
class Context:
    """What comes with a batch of images for blocks inside the backbone.

    Attributes:
        images: ``(B, 3, H, W)`` float32 RGB in 0..255, what the network is given, before it is normalised.
        labels: ``(B,)`` int64 that mean the same in both domains, -1 = none; None outside training.
        known: tensors of the method's parts by name, see `Part.for_encoder`.
    """

    images: Tensor
    labels: Tensor | None = None
    known: Mapping[str, Tensor] = field(default_factory=dict)

    def where(self, chosen: Tensor) -> Context:
        """The same for a choice of the images."""
        labels = None if self.labels is None else self.labels[chosen]
        return Context(self.images[chosen], labels, self.known)


class EncoderPass:
    """The running pass of a `DualStream`, shared by all modules that it put into its backbone.

    Attributes:
        num_day: number of leading day images; the rest is of the night.
        only: the domain of all images, if it is given as one.
        outputs: what blocks give to the losses by name, ``(B, ...)`` in the order of the pass.
    """

    def __init__(self) -> None:
        self.num_day = 0
        self.only: Domain | None = None
        self.given: Context | None = None
        self.outputs: dict[str, Tensor] = {}

    @property
    def context(self) -> Context:
        """What came with the images.

        Raises:
            ValueError: nothing did.
        """
        if self.given is None:
            raise ValueError(
                "A block inside the backbone got no context; call the model with a batch, or its encoder with a "
                "`Context` of the images."
            )
        return self.given

    def domains(self, count: int, device: torch.device) -> Tensor:
        """``(count,)`` int64, the domain of each image in the order of the pass."""
        if self.only is not None:
            return torch.full((count,), int(self.only), device=device)
        return (torch.arange(count, device=device) >= self.num_day).long()
