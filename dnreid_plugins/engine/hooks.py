"""What happens around the steps: labels before an epoch, memory after a step, evaluation, health line."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from fastreid.engine.hooks import HookBase
from fastreid.utils import comm
from fastreid.utils.events import EventWriter
from torch import Tensor

from ..functional.matching_quality import majority_identity, matching_precision
from ..functional.types import Assignment, Domain, Epoch
from ..labels import Labels, TrainImages
from ..labels.build import describe
from ..runtime.agreement import check_agreement, computed_once
from .state import epoch_from_state, epoch_to_state
from .time_left import TrainingLine

logger = logging.getLogger(__name__)


class LabelPhase(HookBase):
    """Before each epoch: extract, label, tell the parts, give the sampler its labels.

    Args:
        extract: returns the features ``(N, D)`` of all training images in canonical order.
        labels: features -> `Epoch`.
        images: what is known of the training images; identities are used for figures marked ``true/`` only.
    """

    name = "labels"

    def __init__(self, *, extract: Callable[[], Tensor], labels: Labels, images: TrainImages) -> None:
        self.extract = extract
        self.labels = labels
        self.images = images
        self.epoch: Epoch | None = None

    def before_epoch(self) -> None:
        """Fresh labels, unless a checkpoint of this very epoch has brought them."""
        number = self.trainer.epoch + 1
        if self.epoch is None or self.epoch.number != number:
            self.epoch = self._label(number)
        self._start(self.epoch)

    def after_epoch(self) -> None:
        """The border of two epochs needs no labels."""
        self.epoch = None

    def state_dict(self) -> dict[str, Any]:
        """The running epoch with its features; empty at the border of two epochs."""
        return {} if self.epoch is None else epoch_to_state(self.epoch)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = epoch_from_state(state) if state else None

    def _start(self, epoch: Epoch) -> None:
        """Hand ``epoch`` to parts and sampler; deterministic, so a resume can replay it."""
        trainer = self.trainer
        parts = trainer.bare_model.parts
        figures = describe(epoch, self.images)
        said = parts.begin_epoch(epoch)
        for part in parts.modules():
            for parameter in (
                part.parameters(recurse=False) if getattr(part, "fresh_each_epoch", False) else ()
            ):
                trainer.optimizer.state.pop(parameter, None)
        for name, own in said.items():
            figures.update({f"{name}/{key}": value for key, value in own.items()})
            if (matching := parts.matching(name)) is not None:
                figures.update(self._precision(name, matching, epoch))
        trainer.use_labels(parts.epoch)
        self._report(figures, epoch)
        check_agreement(
            {
                "pseudo labels": [clusters.labels for clusters in epoch.clusters.values()],
                "matching": [t for a in parts.epoch.matchings.values() for d in Domain for t in a.partner(d)],
                "weights": trainer.bare_model.state_dict().values(),
            },
            when=f"the start of epoch {epoch.number}",
        )

    def _label(self, number: int) -> Epoch:
        features = self.extract()
        self.trainer.checkpoints.stop_if_asked()
        if not bool(torch.isfinite(features).all()):
            raise FloatingPointError(
                f"The encoder gives NaN or infinite features at epoch {number}; lower SOLVER.BASE_LR."
            )

        def work() -> Epoch:
            return self.labels(features, self.images, number=number, last=self.trainer.max_epoch)

        if comm.get_world_size() == 1:
            return work()
        # Every process has all features; labels are made once, so that all have the same ones.
        return epoch_from_state(computed_once(lambda: epoch_to_state(work(), with_features=False)), features)

    def _precision(self, name: str, matching: Assignment, epoch: Epoch) -> dict[str, float]:
        figures = {f"{name}/pairs": float(len(matching.pairs()))}
        if self.images.true_ids is not None:
            day, night = (
                majority_identity(
                    epoch[d].labels,
                    torch.from_numpy(self.images.true_ids[epoch[d].indices.numpy()]),
                    epoch[d].num_clusters,
                )
                for d in Domain
            )
            figures[f"true/{name}/matching_precision"] = 100.0 * matching_precision(matching, day, night)
        return figures

    def _report(self, figures: dict[str, float], epoch: Epoch) -> None:
        known = {k: v for k, v in figures.items() if not k.startswith("true/")}
        line = ", ".join(f"{key} {value:.4g}" for key, value in known.items())
        true = ", ".join(f"{k[5:]} {v:.3g}" for k, v in figures.items() if k.startswith("true/"))
        logger.info("epoch %d/%d health: %s", epoch.number, epoch.last, line)
        if true:
            logger.info("epoch %d/%d true labels (not used): %s", epoch.number, epoch.last, true)
        storage = self.trainer.storage
        storage.iter = self.trainer.iter
        # An undefined figure (the precision of an empty matching) is null below, since JSON knows no NaN.
        defined = {k: v for k, v in figures.items() if math.isfinite(v)}
        storage.put_scalars(**{f"health/{k}": v for k, v in defined.items()}, smoothing_hint=False)
        if comm.is_main_process() and self.trainer.cfg.OUTPUT_DIR:
            path = Path(self.trainer.cfg.OUTPUT_DIR) / "health.jsonl"
            with path.open("a") as file:
                row = {"epoch": epoch.number, **dict.fromkeys(figures), **defined}
                file.write(json.dumps(row) + "\n")


class FollowStep(HookBase):
    """After the optimizer step: the parts follow the batch of all processes."""

    def after_step(self) -> None:
        model = self.trainer.bare_model
        model.parts.after_step(model.last_batch)


def evaluates_after(done: int, period: int, max_epoch: int) -> bool:
    """Whether there is an evaluation after ``done`` epochs; ``period`` 0 means only at the end."""
    return done == max_epoch or (period > 0 and done % period == 0)


class Evaluate(HookBase):
    """Evaluate every ``period`` epochs (0: only at the end) and after the last epoch.

    Unlike fast-reid's hook it stamps the scalars with the current iteration, so that the writers keep them.
    """

    def __init__(self, period: int, evaluate: Callable[[], dict[str, Any]]) -> None:
        self.period = period
        self.evaluate = evaluate

    def after_epoch(self) -> None:
        if evaluates_after(self.trainer.epoch + 1, self.period, self.trainer.max_epoch):
            results = self.evaluate()
            self.trainer.storage.iter = self.trainer.iter
            self.trainer.storage.put_scalars(**flatten(results), smoothing_hint=False)


class Writers(HookBase):
    """Run the event writers every ``period`` iterations and at each epoch's end, `TrainingLine` when it is due.

    They open their files when training starts, after an earlier run in the folder was set aside.
    """

    def __init__(self, build: Callable[[], list[EventWriter]], period: int = 200) -> None:
        self.build = build
        self.writers: list[EventWriter] = []
        self.period = period

    def before_train(self) -> None:
        self.writers = self.build()

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.period == 0:
            self._write()
        for writer in self.writers:
            if isinstance(writer, TrainingLine) and writer.due():
                writer.write()

    def after_epoch(self) -> None:
        self._write()

    def after_train(self) -> None:
        for writer in self.writers:
            writer.close()

    def _write(self) -> None:
        for writer in self.writers:
            writer.write()


def flatten(results: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """``{"D2N": {"mAP": 1.0}}`` -> ``{"D2N/mAP": 1.0}``; what is not a number is left out."""
    flat: dict[str, float] = {}
    for key, value in results.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}/"))
        elif isinstance(value, (int, float)):
            flat[f"{prefix}{key}"] = float(value)
    return flat
