"""Checks before the first epoch: refuse settings that cannot work or that fast-reid would silently ignore.

Each check takes the config and returns None or one sentence with the key, its value and what to do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastreid.config import CfgNode
from fastreid.utils import comm

from ...data.datasets.settings import Settings
from ...data.identity_batches import check_identity_batch
from ...data.transforms import build_domain_transform
from ...evaluation.scoring import ScoreOptions
from ...labels.guard import Guard
from ...runtime.config_files import ConfigError
from ...runtime.plugins import import_plugins
from ...runtime.sections import construct
from ..solver.optimizer import RateFactors, optimizer_class
from ..solver.schedule import plan_from_config
from .model import MODEL_CHECKS, MODEL_TRAINING_CHECKS, Check, needs_clusters, unknown_name
from .parts import parts_objection
from .resources import workers_objection

logger = logging.getLogger(__name__)

SAMPLERS = ("TrainingSampler", "NaiveIdentitySampler", "BalancedIdentitySampler", "ImbalancedDatasetSampler")
IDENTITY_SAMPLERS = ("NaiveIdentitySampler", "BalancedIdentitySampler")


def check(cfg: CfgNode, *, eval_only: bool = False) -> None:
    """Run all checks; ``eval_only`` leaves out those that concern training only.

    Raises:
        ConfigError: with the sentence of every check that fails, one per line.
    """
    checks = (*EVALUATION_CHECKS, _weights_given) if eval_only else EVALUATION_CHECKS + TRAINING_CHECKS
    objections: list[str] = []
    for one in checks:
        try:
            text = one(cfg)
        except (TypeError, IndexError, OverflowError):
            if not objections:
                raise
            continue  # it failed on what an earlier check has refused
        objections += [text] if text is not None else []
    if objections:
        raise ConfigError("\n".join(objections))


def _weights_given(cfg: CfgNode) -> str | None:
    if cfg.MODEL.WEIGHTS:
        return None
    return "MODEL.WEIGHTS is empty, so random weights would be evaluated; give the path of a checkpoint."


def _batch(cfg: CfgNode) -> str | None:
    batch, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    if batch < 2 * processes or batch % processes:
        return (
            f"SOLVER.IMS_PER_BATCH is {batch} for {processes} process(es); it must be a multiple of their number "
            f"with at least 2 images each, since batch norm needs them."
        )
    if cfg.TEST.IMS_PER_BATCH < processes:
        return f"TEST.IMS_PER_BATCH is {cfg.TEST.IMS_PER_BATCH}; it must be at least 1 per process ({processes})."
    sampler = cfg.DATALOADER.SAMPLER_TRAIN
    if not needs_clusters(cfg) and sampler not in SAMPLERS:
        return unknown_name("DATALOADER.SAMPLER_TRAIN", sampler, SAMPLERS)
    return None


def _workers(cfg: CfgNode) -> str | None:
    return workers_objection(cfg.DATALOADER.NUM_WORKERS)


def _periods(cfg: CfgNode) -> str | None:
    if cfg.SOLVER.MAX_EPOCH < 1:
        return f"SOLVER.MAX_EPOCH is {cfg.SOLVER.MAX_EPOCH}; train at least 1 epoch or use --eval-only."
    for section, key in ((cfg.TEST, "EVAL_PERIOD"), (cfg.SOLVER, "CHECKPOINT_PERIOD")):
        if section[key] < 0:
            return f"{key} is {section[key]}; it must be a number of epochs, or 0 for only at the end."
    return None


def _freezing(cfg: CfgNode) -> str | None:
    layers, iterations = list(cfg.MODEL.FREEZE_LAYERS), cfg.SOLVER.FREEZE_ITERS
    if bool(layers) != (iterations > 0):
        logger.warning(
            "MODEL.FREEZE_LAYERS is %s and SOLVER.FREEZE_ITERS %d, so nothing is frozen; set both or neither.",
            layers,
            iterations,
        )
    return None


def _unused_by_clusters(cfg: CfgNode) -> str | None:
    if not needs_clusters(cfg):
        return None
    if cfg.TEST.PRECISE_BN.ENABLED:
        return "TEST.PRECISE_BN.ENABLED is for training with identity labels; set it False."
    if cfg.DATASETS.COMBINEALL:
        return "DATASETS.COMBINEALL would train on the test images; set it False."
    return None


def _output(cfg: CfgNode) -> str | None:
    if not cfg.OUTPUT_DIR:
        return None
    folder = Path(cfg.OUTPUT_DIR)
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:
        return (
            f"OUTPUT_DIR {cfg.OUTPUT_DIR[:100]!r} cannot be a folder name ({error.strerror}); choose another."
        )
    if "\0" in cfg.OUTPUT_DIR:
        return f"OUTPUT_DIR {cfg.OUTPUT_DIR!r} has a NUL byte; choose another."
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return f"OUTPUT_DIR {folder} cannot be written, since {existing} is not a writable folder; choose another."
    return None


def _accepts(build: Callable[[CfgNode], Any]) -> Callable[[CfgNode], str | None]:
    """A part that checks its own keys: the message of its error is the sentence."""

    def one(cfg: CfgNode) -> str | None:
        try:
            build(cfg)
        except ValueError as error:
            return str(error)
        return None

    return one


EVALUATION_CHECKS: tuple[Check, ...] = (
    _accepts(lambda cfg: import_plugins(cfg.PLUGINS)),
    *MODEL_CHECKS,
    _output,
    _accepts(ScoreOptions.from_config),
    _accepts(Settings.from_config),
    _workers,
)
TRAINING_CHECKS: tuple[Check, ...] = (
    *MODEL_TRAINING_CHECKS,
    parts_objection,
    _batch,
    _periods,
    _freezing,
    _unused_by_clusters,
    _accepts(lambda cfg: optimizer_class(cfg.SOLVER.OPT)),
    _accepts(lambda cfg: construct(RateFactors, cfg)),
    _accepts(lambda cfg: construct(Guard, cfg)),
    # Any length works here; the real one is known once the data is read.
    _accepts(lambda cfg: plan_from_config(cfg, iters_per_epoch=10**9)),
    _accepts(lambda cfg: build_domain_transform(cfg, is_train=True)),
)


def check_supervised_data(cfg: CfgNode, dataset: Any) -> None:
    """Check a training set with identities (``img_items``, ``num_classes``) against batch, sampler and loss.

    Raises:
        ValueError: fast-reid's sampler would loop forever, an epoch would be empty, or the loss has one class.
    """
    batch = cfg.SOLVER.IMS_PER_BATCH
    if cfg.DATALOADER.SAMPLER_TRAIN in IDENTITY_SAMPLERS:
        check_identity_batch(dataset.img_items, batch // comm.get_world_size(), cfg.DATALOADER.NUM_INSTANCE)
    if len(dataset) < batch:
        raise ConfigError(
            f"The training set has {len(dataset)} images, SOLVER.IMS_PER_BATCH is {batch}; lower it."
        )
    if dataset.num_classes < 2 and "CrossEntropyLoss" in cfg.MODEL.LOSSES.NAME:
        raise ConfigError("The training set has one identity; CrossEntropyLoss needs at least two.")
