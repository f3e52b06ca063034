"""Before each epoch: features, labels, parts, sampler, and the health line with the figures of all of them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fastreid.engine.hooks import HookBase
from fastreid.utils import comm
from torch import Tensor

from ..evaluation.extraction import evaluating
from ..functional.matching.quality import majority_identity, matching_precision
from ..functional.types import Assignment, Domain, Epoch
from ..labels import Labels, TrainImages
from ..labels.build import describe
from ..labels.guard import Guard
from ..labels.quality import label_free_figures
from ..runtime.agreement import check_agreement, computed_together
from .epoch_state import epoch_from_state, epoch_to_state

logger = logging.getLogger(__name__)


class LabelPhase(HookBase):
    """Before each epoch: extract, label, start the epoch of all parts, set the sampler's labels.

    The extraction is left out where nobody reads its features: with true identities as labels and losses that need
    the batch alone. Centroids and rows of the memory are then 0 at the epoch's start.

    Args:
        extract: returns the features ``(N, D)`` of all training images in canonical order.
        labels: features -> `Epoch`.
        images: what is known about the training images; identities are only used for figures marked ``true/``.
        guard: what says when the labels become worse.

    Raises:
        ValueError: the labels cannot be made for these images.
    """

    name = "labels"

    def __init__(
        self,
        *,
        extract: Callable[[], Tensor],
        labels: Labels,
        images: TrainImages,
        guard: Guard | None = None,
    ) -> None:
        labels.check(images)
        self.extract = extract
        self.labels = labels
        self.images = images
        self.guard = guard or Guard()
        self.epoch: Epoch | None = None
        self.previous: dict[str, Tensor] = {}
        self.history: dict[int, dict[str, float]] = {}

    def before_epoch(self) -> None:
        """New labels, unless a checkpoint of this epoch has restored them."""
        number = self.trainer.epoch + 1
        if self.epoch is None or self.epoch.number != number:
            # The features of the old epoch, which the parts still hold, make room for the new ones.
            self.trainer.bare_model.parts.epoch = None
            self.epoch = self._label(number)
        self._start(self.epoch)

    def after_epoch(self) -> None:
        """Between two epochs no labels are needed but to be compared with the next ones."""
        if self.epoch is not None:
            self.previous = {name: part.labels for name, part in self.epoch.clusters.items()}
        self.epoch = None

    def state_dict(self) -> dict[str, Any]:
        """The running epoch with its features, if one runs; labels of the one before, figures of all so far."""
        state = {"previous": dict(self.previous), "history": dict(self.history)}
        return state if self.epoch is None else {**state, "epoch": epoch_to_state(self.epoch)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = epoch_from_state(state["epoch"]) if "epoch" in state else None
        self.previous, self.history = dict(state["previous"]), dict(state["history"])

    def _start(self, epoch: Epoch) -> None:
        """Start ``epoch`` in parts and sampler; deterministic, so that a resume can replay it."""
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
        self._guarded(figures, epoch)
        check_agreement(
            {
                "pseudo labels": [clusters.labels for clusters in epoch.clusters.values()],
                "matching": [t for a in parts.epoch.matchings.values() for d in Domain for t in a.partner(d)],
                "weights": trainer.bare_model.state_dict().values(),
            },
            when=f"the start of epoch {epoch.number}",
        )

    def _label(self, number: int) -> Epoch:
        features = self.extract() if self._features_are_read() else self._blank_features()
        self.trainer.checkpoints.stop_if_asked()

        def work() -> Epoch:
            epoch = self.labels(features, self.images, number=number, last=self.trainer.max_epoch)
            if not self.labels.features_are_read():  # true identities: there is nothing to be judged
                return epoch
            return replace(epoch, figures={**epoch.figures, **label_free_figures(epoch, self.previous)})

        if comm.get_world_size() == 1:
            return work()
        # Every process has all features; they share the search for neighbours, nearly all of the work.
        state = computed_together(lambda: epoch_to_state(work(), with_features=False))
        return epoch_from_state(state, features)

    def _guarded(self, figures: dict[str, float], epoch: Epoch) -> None:
        if not self.labels.features_are_read():
            return
        self.history[epoch.number] = {k: v for k, v in figures.items() if not k.startswith("true/")}
        self.guard.look(self.history, eps=self.trainer.cfg.CLUSTER.EPS)

    def _features_are_read(self) -> bool:
        return self.labels.features_are_read() or self.trainer.bare_model.parts.features_are_read()

    def _blank_features(self) -> Tensor:
        """``(N, D)`` zeros; one empty image says how long a feature is."""
        model, size = self.trainer.bare_model, list(self.trainer.cfg.INPUT.SIZE_TRAIN)
        image = {"images": torch.zeros(1, 3, *(size * 2)[:2]), "domains": torch.zeros(1, dtype=torch.int64)}
        with evaluating(model), torch.no_grad():
            width = model.encode(image, feature=self.trainer.cfg.CLUSTER.FEATURE).shape[1]
        return torch.zeros(len(self.images), width)

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
