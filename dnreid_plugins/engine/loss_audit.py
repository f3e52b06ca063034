"""How much each loss trains the encoder: gradient norms and batch statistics of every head."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from fastreid.engine.hooks import HookBase
from fastreid.utils import comm
from torch import Tensor

logger = logging.getLogger(__name__)


class LossAudit(HookBase):
    """Every ``period`` iterations: the norm of each loss head's gradient at the features, and its share.

    A head's statistics of its last batch (`LossHead.statistics`) are written then too, as ``<head>/<key>``.
    A head with a weight above 0 whose gradient is exactly zero trains nothing: this is logged as a warning.
    """

    def __init__(self, period: int) -> None:
        self.period = period

    def losses_ready(self, losses: dict[str, Tensor]) -> None:
        """Called by the trainer with the losses of each step while their graph exists."""
        if self.trainer.iter % self.period != 0:
            return
        outputs = self.trainer.bare_model.last_outputs
        norms = {name: gradient_norm(loss, outputs) for name, loss in losses.items()}
        total = sum(norms.values())
        scalars = {f"audit/{name}": norm for name, norm in norms.items()}
        scalars.update(
            {f"audit/{name}_share": 100 * norm / total for name, norm in norms.items() if total > 0}
        )
        if comm.is_main_process():
            scalars.update(batch_statistics(self.trainer.bare_model))
        self.trainer.storage.put_scalars(**scalars, smoothing_hint=False)
        for name, norm in norms.items():
            if norm == 0.0:
                logger.warning(
                    "%s has gradient exactly 0 at the encoder at iteration %d although its weight is not 0.",
                    name,
                    self.trainer.iter,
                )
        line = ", ".join(f"{k} {v:.3g} ({100 * v / max(total, 1e-30):.0f} %)" for k, v in norms.items())
        logger.info("iteration %d audit, gradient norm at the features: %s", self.trainer.iter, line)


def batch_statistics(model: Any) -> dict[str, float]:
    """``{"<head>/<key>": value}`` of every head that trains in the running epoch, finite figures only."""
    figures = {
        f"{name}/{key}": float(value)
        for name, head in model.parts.active_heads()
        for key, value in head.statistics.items()
    }
    return {key: value for key, value in figures.items() if math.isfinite(value)}


def gradient_norm(loss: Tensor, outputs: Sequence[Tensor]) -> float:
    """Norm of the gradient of ``loss`` at what the encoder gives, all together; 0 where it reaches none of them."""
    if not loss.requires_grad:
        return 0.0
    gradients = torch.autograd.grad(loss, list(outputs), retain_graph=True, allow_unused=True)
    # torch's types do not know that `allow_unused` gives None.
    found: list[Tensor | None] = list(gradients)
    norms = [float(gradient.float().norm()) for gradient in found if gradient is not None]
    return math.hypot(*norms)
