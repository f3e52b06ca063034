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
        self._joined: tuple[Tensor, int, tuple[Tensor, Tensor]] | None = None

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The day and night rows of ``x``, either not empty.

        Where ``x`` is the last result of `join`, and nothing has been written into it, they are what it was made of:
        the gradient of a slice would be as large as ``x``, zeros for the most part.
        """
        if self._joined is not None and self._joined[0] is x and self._joined[1] == x._version:
            return self._joined[2]
        return x[: self.num_day], x[self.num_day :]

    def join(self, day: Tensor, night: Tensor) -> Tensor:
        """``day`` rows, then ``night`` rows."""
        x = torch.cat([day, night])
        # A tensor of the inference mode counts no writes.
        self._joined = None if x.is_inference() else (x, x._version, (day, night))
        return x

    def end(self) -> None:
        """Forget what the pass was given; `outputs` stay."""
        self.given = self._joined = None

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
