"""Stage 1 of "Bridging Day and Night": learn each training image's prompt from its frozen CLIP feature.

Image features are extracted once by the caller. A step draws the same number of images of each domain, computes their
prompts' text features (Eq. 1) and contrasts them with the images in both directions (Eq. 2, 3, 14). The towers
are frozen; only the token table and the bias net train.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...functional.losses.image_text import instance_contrast
from ...functional.types import Domain
from ...modeling.clip.prompts import PromptLearner
from ...modeling.clip.text_tower import ClipTextTower
from .prompt_options import PromptStageOptions, epoch_order
from .row_adam import RowAdamW

_log = logging.getLogger(__name__)


class PromptStage:
    """Trains a `PromptLearner`. It can be interrupted anywhere; resumed from ``state_dict()`` it is bit-exact.

    Args:
        prompts: trained in place; its device is used for the computation.
        text: the frozen text tower, on the same device.
        features: ``(N, F)`` image features in canonical order, ``unit_parts`` of the frozen image tower: unit
            rows whose last P columns are the projection. They may stay on the CPU and in half precision.
        options: see `PromptStageOptions`.
        autocast: number format of the text tower on an accelerator; None = float32. With ``torch.float16`` the
            gradients are scaled on their way through the tower.

    Attributes:
        epoch: the running epoch from 1; above ``options.epochs`` when finished.
        step: steps done in it.

    Raises:
        ValueError: the number of features is not the number of prompts, or there is no image at all.
    """

    def __init__(
        self,
        *,
        prompts: PromptLearner,
        text: ClipTextTower,
        features: Tensor,
        options: PromptStageOptions,
        autocast: torch.dtype | None = None,
    ) -> None:
        if len(features) != prompts.num_images or len(features) == 0:
            raise ValueError(
                f"Got {len(features)} features for {prompts.num_images} prompts; one each is needed."
            )
        self.prompts, self.text, self.features, self.options = prompts, text, features, options
        self.autocast = autocast
        self._scale = self.scale_of(autocast)
        domains = prompts.domains.cpu()
        self._images = tuple(torch.nonzero(domains == int(domain)).flatten() for domain in Domain)
        self.optimizers = _build_optimizers(prompts, options)
        self.epoch, self.step = 1, 0
        self._sums: dict[str, Tensor] = {}
        self._batches = self._order()
        self._token_factor = options.token_factor(len(self._batches))

    @staticmethod
    def scale_of(autocast: torch.dtype | None) -> float:
        """Of the loss: a power of two, which rounds nothing; below 6e-8 a gradient would be 0 in float16."""
        return 4096.0 if autocast == torch.float16 else 1.0

    @property
    def device(self) -> torch.device:
        return self.prompts.frame.device

    @property
    def steps_per_epoch(self) -> int:
        return len(self._batches)

    @property
    def finished(self) -> bool:
        return self.epoch > self.options.epochs

    def run_epoch(self, stop: Callable[[], bool]) -> None:
        """Train from the present position to the end of the epoch, or until ``stop()`` is true after a step."""
        started, epoch = time.monotonic(), self.epoch
        while self.epoch == epoch:
            means = self.train_step()
            if stop() and self.epoch == epoch:
                return
        text = "  ".join(f"{key} {value:.4g}" for key, value in means.items())
        seconds = time.monotonic() - started
        _log.info("stage 1 epoch %d/%d  %s  %.1f s", epoch, self.options.epochs, text, seconds)

    def train_step(self) -> dict[str, float]:
        """One optimizer step. Returns the means of the epoch so far if this step ended it, else nothing."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            factor = self._token_factor if isinstance(optimizer, RowAdamW) else 1.0
            for group in optimizer.param_groups:
                group["lr"] = factor * self.options.learning_rate(self.epoch)
        for domain in Domain:
            chosen = self._images[domain][self._batches[self.step][domain]]
            if len(chosen) > 0:
                self._backward(domain, chosen)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups if self._scale != 1.0 else ():
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad.div_(self._scale)
            optimizer.step()
        self.step += 1
        return self._end_epoch() if self.step == self.steps_per_epoch else {}

    def _backward(self, domain: Domain, chosen: Tensor) -> None:
        """Eq. 2 and 3 of one domain. The domains share no term, so each is freed before the next."""
        indices = chosen.to(self.device)
        features = self.features[chosen.to(self.features.device)].to(self.device, torch.float32)
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            texts = self.prompts.text_features(self.text, indices, features)
        texts = texts.float()
        images = F.normalize(features[:, -texts.shape[1] :])
        i2t, t2i = instance_contrast(images, texts, indices, temperature=self.options.temperature)
        (self._scale * (i2t + t2i)).backward()
        name = domain.name.lower()
        self._add(f"i2t_{name}", i2t.detach())
        self._add(f"t2i_{name}", t2i.detach())
        self._add(f"text_norm_{name}", texts.detach().norm(dim=1).mean())

    def _add(self, key: str, value: Tensor) -> None:
        self._sums[key] = self._sums.get(key, torch.zeros((), device=value.device)) + value

    def _end_epoch(self) -> dict[str, float]:
        means = {key: float(value) / self.steps_per_epoch for key, value in self._sums.items()}
        means["lr"] = self.options.learning_rate(self.epoch)
        self.epoch, self.step, self._sums = self.epoch + 1, 0, {}
        self._batches = self._order()
        return means

    def _order(self) -> list[tuple[Tensor, Tensor]]:
        return epoch_order((len(self._images[0]), len(self._images[1])), self.options, self.epoch)

    @torch.no_grad()
    def text_features(self, batch_size: int = 512) -> Tensor:
        """``(N, P)`` float32 text features of every image's present prompt, not normalised, on the CPU."""
        parts = []
        for indices in torch.arange(len(self.features)).split(batch_size):
            features = self.features[indices.to(self.features.device)].to(self.device, torch.float32)
            parts.append(
                self.prompts.text_features(self.text, indices.to(self.device), features).float().cpu()
            )
        return torch.cat(parts)

    def state_dict(self) -> dict[str, Any]:
        """Prompts, optimizers, position and options: plain values and tensors. The order of images is not in
        it, being a function of (seed, epoch)."""
        return {
            "prompts": self.prompts.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "epoch": self.epoch,
            "step": self.step,
            "sums": dict(self._sums),
            "options": self._options(),
        }

    def _options(self) -> dict[str, Any]:
        """Everything that determines the result."""
        free = ("weights", "checkpoint_period")
        return {key: value for key, value in asdict(self.options).items() if key not in free}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Counterpart of `state_dict`.

        Raises:
            ValueError: the state was made with other options.
        """
        mine = self._options()
        changed = {
            key: (state["options"].get(key), mine[key])
            for key in mine
            if state["options"].get(key) != mine[key]
        }
        if changed:
            raise ValueError(
                f"Stage 1 was started with other options than it is resumed with (before, now): {changed}; "
                "put them back or start in a new folder."
            )
        self.prompts.load_state_dict(state["prompts"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.epoch, self.step = state["epoch"], state["step"]
        self._sums = {key: value.to(self.device) for key, value in state["sums"].items()}
        self._batches = self._order()


def _build_optimizers(prompts: PromptLearner, options: PromptStageOptions) -> list[torch.optim.Optimizer]:
    dense = [p for p in prompts.parameters() if p is not prompts.tokens.weight]
    optimizers: list[torch.optim.Optimizer] = []
    if prompts.tokens.sparse:
        table = RowAdamW(
            [prompts.tokens.weight],
            lr=options.lr,
            weight_decay=options.weight_decay,
            decoupled=options.optimizer == "AdamW",
            first_dtype=getattr(torch, options.first_moment),
        )
        optimizers.append(table)
    else:
        dense.append(prompts.tokens.weight)
    if dense:
        kind = getattr(torch.optim, options.optimizer)
        optimizers.append(kind(dense, lr=options.lr, weight_decay=options.weight_decay))
    return optimizers
