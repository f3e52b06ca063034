"""Options around the training step: frozen layers, averaged weights, precise batch norm, profile, best on test."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from fastreid.engine.hooks import PreciseBN
from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm
from torch import Tensor, nn

from ..evaluation.evaluator import chooses_a_model
from ..evaluation.results import update_results
from ..modeling.parts import names_of_parts
from ..modeling.pretrained import single_stream_name
from ..runtime.generators import generators_kept
from ..runtime.weight_files import WeightFileError, read_weight_file
from .checkpoint_files import BEST

logger = logging.getLogger(__name__)

BATCH_NORM = nn.modules.batchnorm._BatchNorm


def build_extra_hooks(trainer: Any) -> list[HookBase]:
    """The hooks that ``trainer.cfg`` asks for, in the order in which they must run; all run before evaluation."""
    cfg, model = trainer.cfg, trainer.bare_model
    result: list[HookBase] = []
    if cfg.PROFILE.STEPS > 0 and cfg.OUTPUT_DIR:
        result.append(Profile(cfg.OUTPUT_DIR, start=cfg.PROFILE.START, steps=cfg.PROFILE.STEPS))
    if cfg.MODEL.FREEZE_LAYERS and cfg.SOLVER.FREEZE_ITERS > 0:
        result.append(LayerFreeze(model, cfg.MODEL.FREEZE_LAYERS, cfg.SOLVER.FREEZE_ITERS))
    if cfg.SOLVER.SWA.ENABLED:
        result.append(WeightAverage(model, first_epoch=cfg.SOLVER.SWA.START_EPOCH))
    if cfg.TEST.PRECISE_BN.ENABLED:
        own = cfg.clone()
        own.defrost()
        own.DATALOADER.NUM_WORKERS = 0
        own.DATASETS.NAMES = (cfg.TEST.PRECISE_BN.DATASET,)
        with generators_kept():  # the run trains on the same batches with or without this hook
            loader = trainer.build_train_loader(own)
        result.append(PreciseBN(model, loader, cfg.TEST.PRECISE_BN.NUM_ITER))
    return result


class LayerFreeze(HookBase):
    """Freeze the named parts, including their batch-norm statistics, for the first iterations of the run.

    The count is the run's iteration, so a resume continues it; batch norm stays frozen also after an evaluation.

    Args:
        model: the bare model.
        names: parts by their path (``"backbone"``, ``"backbone.conv1"``); in a dual-stream encoder the path of the
            plain module means both copies.
        iterations: number of steps.

    Raises:
        ValueError: a name fits no parameter, or nothing would be left to train.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], iterations: int) -> None:
        self.iterations = iterations
        parts = {name: [p for n, p in model.named_parameters() if _lies_in(n, name)] for name in names}
        for name, found in parts.items():
            if not found:
                raise ValueError(
                    f"MODEL.FREEZE_LAYERS names {name!r}, which is not a part of the model; its parts are "
                    f"{[child for child, _ in model.named_children()]} and their sub-modules."
                )
        self.parameters = {id(p): p for found in parts.values() for p in found if p.requires_grad}
        if all(id(p) in self.parameters for p in model.parameters() if p.requires_grad):
            raise ValueError(f"MODEL.FREEZE_LAYERS {list(names)} leaves nothing to train; leave a part out.")
        self.batch_norms = [
            module
            for path, module in model.named_modules()
            if isinstance(module, BATCH_NORM) and any(_lies_in(path, name) for name in names)
        ]
        self.frozen = False

    def before_step(self) -> None:
        if self.trainer.iter < self.iterations:
            self._set(frozen=True)
        elif self.frozen:
            self._set(frozen=False)
            logger.info("Iteration %d: the frozen layers train from here on.", self.trainer.iter)

    def _set(self, *, frozen: bool) -> None:
        for parameter in self.parameters.values():
            parameter.requires_grad_(not frozen)
        for module in self.batch_norms:
            module.train(not frozen)
        self.frozen = frozen


def _lies_in(path: str, name: str) -> bool:
    return any(own == name or own.startswith(f"{name}.") for own in (path, single_stream_name(path)))


class WeightAverage(HookBase):
    """Stochastic weight averaging: the mean of the weights (and statistics) after each of the last epochs.

    After the last epoch the mean is put into the model, before it is evaluated and saved. ``state_dict`` holds
    the running mean for the checkpoint. Parts of a method are not averaged, since their sizes may follow the clusters.

    Args:
        model: the bare model.
        first_epoch: first epoch in the average, counted from 1.
    """

    name = "weight_average"

    def __init__(self, model: nn.Module, *, first_epoch: int) -> None:
        self.model = model
        self.first_epoch = first_epoch
        self.count = 0
        self.mean: dict[str, Tensor] = {}

    def after_epoch(self) -> None:
        done = self.trainer.epoch + 1
        if done >= self.first_epoch:
            self.update()
        if done == self.trainer.max_epoch and self.count > 0:
            self.model.load_state_dict(self.mean, strict=False)
            logger.info("The weights are now the mean of those after %d epochs.", self.count)

    @torch.no_grad()
    def update(self) -> None:
        """Add the present weights to the mean; integers (batch counters) are left out."""
        self.count += 1
        left_out = names_of_parts(self.model)
        for name, value in self.model.state_dict().items():
            if name in left_out or not value.is_floating_point():
                continue
            if name in self.mean:
                self.mean[name] += (value - self.mean[name]) / self.count
            else:
                self.mean[name] = value.detach().clone()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": dict(self.mean)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        device = next(self.model.parameters()).device
        left_out = names_of_parts(self.model)
        self.count = int(state["count"])
        self.mean = {k: v.to(device).clone() for k, v in state["mean"].items() if k not in left_out}


class Profile(HookBase):
    """Trace ``steps`` iterations from ``start`` on into ``<folder>/profile-<iteration>.json``."""

    def __init__(self, folder: str, *, start: int, steps: int) -> None:
        self.folder = Path(folder)
        self.start, self.end = start, start + steps
        self._profiler: torch.profiler.profile | None = None

    def before_step(self) -> None:
        if self.start <= self.trainer.iter < self.end:
            self._profiler = torch.profiler.profile()
            self._profiler.__enter__()

    def after_step(self) -> None:
        if self._profiler is not None:
            self._profiler.__exit__(None, None, None)
            self._profiler.export_chrome_trace(str(self.folder / f"profile-{self.trainer.iter}.json"))
            self._profiler = None


class BestKeeper(HookBase):
    """Save ``model_best`` whenever an evaluation is better than all earlier ones, including those before a resume.

    Its figures go into ``results.json`` as ``best_on_test``, beside those of the last epoch, which are the result.

    Runs after the evaluation hook, so the score belongs to the saved weights.

    Args:
        latest: returns the results of the newest evaluation, the same object until there is a newer one.
        save: ``save(name, **extra)`` of a checkpointer.
        folder: folder of ``model_best.pth``.
    """

    def __init__(self, latest: Callable[[], Any], save: Callable[..., Any], folder: str) -> None:
        self.latest = latest
        self.save = save
        self.path = Path(folder) / f"{BEST}.pth"
        self.best = float("-inf")
        self._seen: Any = None

    def before_train(self) -> None:
        self._seen = self.latest()
        if self.trainer.start_iter > 0 and self.path.is_file():
            try:
                self.best = float(read_weight_file(self.path)["metric"])
            except (WeightFileError, KeyError, TypeError) as error:
                logger.warning("The best score so far is unknown (%s) and is reset.", error)

    def after_epoch(self) -> None:
        results = self.latest()
        if results is self._seen:
            return
        self._seen = results
        score = selection_score(results)
        if score is not None and score > self.best:
            self.best = score
            self.save(BEST, metric=score, epoch=self.trainer.epoch, iteration=self.trainer.iter)
            if comm.is_main_process():
                best = {"note": "chosen by test labels, not a result", "epoch": self.trainer.epoch + 1}
                update_results(str(self.path.parent), best_on_test={**best, "results": dict(results)})
            logger.info(
                "Epoch %d is the best on test so far: %.2f (chosen by test labels, not a result).",
                self.trainer.epoch + 1,
                score,
            )


def selection_score(results: dict[str, Any]) -> float | None:
    """fast-reid's ``metric``, (mAP + Rank-1) / 2 in percent, over the directions of the first test set.

    A script's own evaluator may give the metrics of a set without directions; then its ``metric`` is used.
    """
    for found in results.values():
        if "metric" in found:
            return found["metric"]
        directions = found if "mAP" not in found else {"": found}
        chosen = [
            (metrics["mAP"] + metrics["Rank-1"]) / 2
            for name, metrics in directions.items()
            if isinstance(metrics, dict) and chooses_a_model(name)
        ]
        return sum(chosen) / len(chosen) if chosen else None
    return None
