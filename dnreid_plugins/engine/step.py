"""One optimizer step: forward, losses, backward, with mixed precision if configured."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from fastreid.engine.train_loop import SimpleTrainer
from torch import Tensor, nn

from ..data.collate import on_device
from .epoch_state import generator_state

# Loss scaling halves the scale whenever a gradient overflows; this low, every gradient does.
SMALLEST_SCALE = 2.0**-14

AMP_IGNORED = "SOLVER.AMP is ignored: float16 is slow on a CPU, so this run computes in float32."


def amp_dtype(cfg: Any) -> torch.dtype | None:
    """The number format of mixed precision for ``SOLVER.AMP`` on ``MODEL.DEVICE``; None = float32.

    float16 is for GPUs: fast-reid's stock configs enable it, and a CPU is about thirty times slower with it than with
    float32. The config itself is not changed, so that a resume compares the same keys.
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    dtype: torch.dtype = getattr(torch, cfg.SOLVER.AMP.DTYPE)
    return None if dtype is torch.float16 and torch.device(cfg.MODEL.DEVICE).type == "cpu" else dtype


class NonFiniteLossError(FloatingPointError):
    """A loss or a gradient became NaN or infinite, or float16 can no longer hold the gradients."""


class StepObserver(Protocol):
    """Callbacks from inside a step."""

    def losses_ready(self, losses: dict[str, Tensor]) -> None:
        """The losses of a step, while their graph exists."""

    def stream_done(self) -> None:
        """After the optimizer's step, if the iteration has another one."""

    def step_failed(self, batch: dict[str, Any], losses: dict[str, Tensor], reason: str) -> str:
        """A loss or gradient is NaN or infinite; returns text for the message, e.g. where the batch is saved."""


class StepTrainer(SimpleTrainer):
    """fast-reid's SimpleTrainer on any device, with pseudo labels filled in and `torch.amp`.

    Batches go to the model's device. ``observer`` gets the losses and failures.

    With several streams an iteration has one step for each of them: a batch of that stream, its losses, the optimizer.
    Hooks, schedules and clocks count it once.

    Attributes:
        streams: loaders by the names of the streams; without pseudo labels there is a nameless one.
        pseudo_labels: ``(N,)`` int64 by canonical index, or None if the batch has its own targets.
        generators: `generator_state` before the forward pass of the running step (some 40 microseconds).
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: torch.optim.Optimizer,
        *,
        amp_dtype: torch.dtype | None = None,
        observer: StepObserver | None = None,
    ) -> None:
        model.train()
        # SimpleTrainer.__init__ would start an iterator now; the label phase does it once there are labels.
        super(SimpleTrainer, self).__init__()
        self.model = model
        self.data_loader = data_loader
        self.streams: dict[Any, Any] = {"": data_loader}
        self.optimizer = optimizer
        self.param_wrapper = None
        self.pseudo_labels: Tensor | None = None
        self.last_paths: list[str] = []
        self.generators: dict[str, Any] = {}
        self._iterators: dict[str, Iterator[Any]] = {}
        self.amp_dtype = amp_dtype
        self.device = next(model.parameters()).device
        self.device_type = self.device.type
        # Loss scaling is for float16 on CUDA; bfloat16 has the range of float32.
        scaled = self.amp_dtype is torch.float16 and self.device_type == "cuda"
        self.grad_scaler = torch.amp.GradScaler("cuda") if scaled else None
        self.observer = observer

    def start_iterator(self, names: Sequence[str] = ()) -> None:
        """Restart the loaders of these streams (all of them), e.g. after the samplers got new labels."""
        self._iterators = {name: iter(self.streams[name]) for name in names or self.streams}

    def run_step(self) -> None:
        if not self.model.training:
            raise RuntimeError("The model was left in eval mode; a training step needs model.train().")
        if not self._iterators:
            self.start_iterator()
        losses: dict[str, Tensor] = {}
        data_time = 0.0
        for place, name in enumerate(self._iterators):
            if place > 0 and self.observer is not None:
                self.observer.stream_done()
            start = time.perf_counter()
            batch = next(self._iterators[name])
            if self.pseudo_labels is not None:
                batch["targets"] = self.pseudo_labels[batch["indices"]]
                batch.update({} if name == "domains" else {"stream": name})
            batch = on_device(batch, self.device)
            data_time += time.perf_counter() - start
            losses.update(self._step(batch))
        self._write_metrics(losses, data_time)

    def _step(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Forward, backward and optimizer for one batch; returns its losses, on the CPU."""
        self.last_paths = list(batch.get("img_paths", ()))
        self.generators = generator_state()
        with self._autocast():
            losses = self.model(batch)
        if self.observer is not None:
            self.observer.losses_ready(losses)
        values = self._checked_values(batch, losses)
        total = sum(losses.values())
        self.optimizer.zero_grad()
        if self.grad_scaler is None:
            total.backward()
            self._check_gradients(batch, losses)
            self.optimizer.step()
        else:
            # Temporarily infinite gradients only make the scaler skip the step.
            self.grad_scaler.scale(total).backward()
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
            if self.grad_scaler.get_scale() < SMALLEST_SCALE:
                self._stop(batch, losses, f"The loss scale fell to {self.grad_scaler.get_scale():g}")
        return values

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.amp_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device_type, dtype=self.amp_dtype)

    def _checked_values(self, batch: dict[str, Any], losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses without graph on the CPU, copied together: each copy from a GPU waits for all of its work."""
        values = torch.stack([value.detach().reshape(()) for value in losses.values()]).cpu()
        for name, value in zip(losses, values.tolist(), strict=True):
            if not math.isfinite(value):
                self._stop(batch, losses, f"{name} is {value}")
        return dict(zip(losses, values, strict=True))

    def _check_gradients(self, batch: dict[str, Any], losses: dict[str, Tensor]) -> None:
        """A finite loss can have an infinite or NaN gradient; one step with it would destroy all weights."""
        moved = (p.grad for group in self.optimizer.param_groups for p in group["params"])
        gradients = [gradient for gradient in moved if gradient is not None]
        if gradients and not math.isfinite(nn.utils.get_total_norm(gradients)):
            named = [(name, p.grad) for name, p in self.model.named_parameters() if p.grad is not None]
            bad = [name for name, gradient in named if not bool(torch.isfinite(gradient).all())]
            where = f"in {len(bad)} tensors, e.g. {bad[0]}" if bad else "in its norm"
            self._stop(batch, losses, f"All losses are finite, but the gradient is NaN or infinite {where},")

    def _stop(self, batch: dict[str, Any], losses: dict[str, Tensor], what: str) -> None:
        rate = self.optimizer.param_groups[0]["lr"]
        scale = "off" if self.grad_scaler is None else f"{self.grad_scaler.get_scale():g}"
        reason = f"{what} at iteration {self.iter} (learning rate {rate:g}, loss scale {scale})"
        kept = "" if self.observer is None else self.observer.step_failed(batch, losses, reason)
        raise NonFiniteLossError(
            f"{reason}; lower SOLVER.BASE_LR or look at the batch, whose first images are {self.last_paths[:3]}"
            f"{f'; {kept}' if kept else ''}."
        )
