"""What happens around the steps: labels before an epoch, memory after a step, evaluation, health line."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastreid.engine.hooks import HookBase
from fastreid.utils import comm
from fastreid.utils.events import EventWriter
from torch import Tensor

from ..functional.matching_quality import majority_identity, matching_precision
from ..functional.types import Assignment, Domain, EpochClusters
from .agreement import check_agreement, computed_once
from .label_phase import Clusterer, describe
from .state import clusters_from_state, clusters_to_state
from .time_left import TrainingLine

logger = logging.getLogger(__name__)


class LabelPhase(HookBase):
    """Before each epoch: extract, cluster, rebuild memory and loss heads, give the sampler its labels.

    Args:
        extract: returns the features ``(N, D)`` of all training images in canonical order.
        clusterer: features -> `EpochClusters`.
        domains: ``(N,)`` int64.
        true_ids: ``(N,)`` int64 where known; used for figures marked ``true/`` only.
        paired: the sampler draws matched clusters together once a loss head has a matching.
    """

    def __init__(
        self,
        *,
        extract: Callable[[], Tensor],
        clusterer: Clusterer,
        domains: Tensor,
        true_ids: np.ndarray | None,
        paired: bool = False,
    ) -> None:
        self.extract = extract
        self.clusterer = clusterer
        self.domains = domains
        self.true_ids = true_ids
        self.paired = paired
        self.clusters: EpochClusters | None = None

    def before_epoch(self) -> None:
        """Fresh labels, unless a checkpoint of this very epoch has brought them."""
        epoch = self.trainer.epoch + 1
        if self.clusters is None or self.clusters.epoch != epoch:
            self.clusters = self._cluster(epoch)
        self.start_epoch(self.clusters)
        self._check_agreement(self.clusters)

    def start_epoch(self, clusters: EpochClusters) -> None:
        """Hand ``clusters`` to memory, loss heads and sampler; deterministic, so a resume can replay it."""
        trainer = self.trainer
        figures = describe(clusters, self.true_ids)
        built, assignment = begin_epoch(trainer.bare_model, clusters)
        for head in trainer.bare_model.loss_heads.values():
            for parameter in head.parameters() if head.follows_clusters else ():
                trainer.optimizer.state.pop(parameter, None)
        for name, own in built.items():
            figures.update({f"{name}/{key}": value for key, value in own.items()})
            figures.update(self._precision(name, trainer.bare_model.loss_heads[name], clusters))
        labels = torch.full((len(self.domains),), -1, dtype=torch.int64)
        for domain in Domain:
            labels[clusters[domain].indices] = clusters[domain].labels
        trainer.use_labels(labels, assignment if self.paired else None)
        self._report(figures, clusters)

    def _cluster(self, epoch: int) -> EpochClusters:
        features = self.extract()
        self.trainer.checkpoints.stop_if_asked()
        if not bool(torch.isfinite(features).all()):
            raise FloatingPointError(
                f"The encoder gives NaN or infinite features at epoch {epoch}; lower SOLVER.BASE_LR."
            )
        if comm.get_world_size() == 1:
            return self.clusterer(features, self.domains, epoch=epoch, max_epoch=self.trainer.max_epoch)
        # Every process has all features; labels are made once, so that all have the same ones.
        state = computed_once(
            lambda: clusters_to_state(
                self.clusterer(features, self.domains, epoch=epoch, max_epoch=self.trainer.max_epoch),
                with_features=False,
            )
        )
        return clusters_from_state(state, features)

    def _check_agreement(self, clusters: EpochClusters) -> None:
        """Several processes: stop if they do not hold the same bits."""
        model = self.trainer.bare_model
        heads = [h.assignment for h in model.loss_heads.values() if h.assignment is not None]
        check_agreement(
            {
                "pseudo labels": [clusters[d].labels for d in Domain],
                "prototypes": [model.memory.rows(d) for d in Domain],
                "matching": [t for a in heads for d in Domain for t in a.partner(d)],
                "weights": model.state_dict().values(),
            },
            when=f"the start of epoch {clusters.epoch}",
        )

    def _precision(self, name: str, head: Any, clusters: EpochClusters) -> dict[str, float]:
        if head.assignment is None:
            return {}
        figures = {f"{name}/pairs": float(len(head.assignment.pairs()))}
        if self.true_ids is not None:
            day, night = (
                majority_identity(
                    clusters[d].labels,
                    torch.from_numpy(self.true_ids[clusters[d].indices.numpy()]),
                    clusters[d].num_clusters,
                )
                for d in Domain
            )
            figures[f"true/{name}/matching_precision"] = 100.0 * matching_precision(
                head.assignment, day, night
            )
        return figures

    def _report(self, figures: dict[str, float], clusters: EpochClusters) -> None:
        known = {k: v for k, v in figures.items() if not k.startswith("true/")}
        line = ", ".join(f"{key} {value:.4g}" for key, value in known.items())
        true = ", ".join(f"{k[5:]} {v:.3g}" for k, v in figures.items() if k.startswith("true/"))
        logger.info("epoch %d/%d health: %s", clusters.epoch, clusters.max_epoch, line)
        if true:
            logger.info("epoch %d/%d true labels (not used): %s", clusters.epoch, clusters.max_epoch, true)
        storage = self.trainer.storage
        storage.iter = self.trainer.iter
        # An undefined figure (the precision of an empty matching) is null below, since JSON knows no NaN.
        defined = {k: v for k, v in figures.items() if math.isfinite(v)}
        storage.put_scalars(**{f"health/{k}": v for k, v in defined.items()}, smoothing_hint=False)
        if comm.is_main_process() and self.trainer.cfg.OUTPUT_DIR:
            path = Path(self.trainer.cfg.OUTPUT_DIR) / "health.jsonl"
            with path.open("a") as file:
                row = {"epoch": clusters.epoch, **dict.fromkeys(figures), **defined}
                file.write(json.dumps(row) + "\n")


def begin_epoch(model: Any, clusters: EpochClusters) -> tuple[dict[str, dict[str, float]], Assignment | None]:
    """Rebuild memory and loss heads for an epoch; returns what each head says of it and the matching used."""
    model.epoch = clusters.epoch
    model.memory.rebuild(clusters, model.device)
    figures: dict[str, dict[str, float]] = {}
    assignment = None
    for name, head in model.loss_heads.items():
        if head.weight_at(clusters.epoch) > 0 or head.begins_always:
            figures[name] = head.begin_epoch(clusters, model.memory)
            assignment = head.assignment or assignment
    for head in model.loss_heads.values():
        head.matching = assignment
    return figures, assignment


class MemoryUpdate(HookBase):
    """After the optimizer step: move the prototypes by the features of the whole batch, all processes' images."""

    def after_step(self) -> None:
        model = self.trainer.bare_model
        batch = model.last_batch
        model.memory.update(batch.unit, batch.targets, batch.domains)
        for head in model.loss_heads.values():
            if head.weight_at(model.epoch) > 0:
                head.after_step(batch, model.memory)


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
