"""What a report needs beside the files of a run: its model, features of test images and of some training images."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...data.digest import short_path
from ...data.errors import DataError
from ...data.loaders import build_inference_loader
from ...data.train_data import read_dataset
from ...engine.evaluate import evaluate_all, see_sets
from ...engine.evaluation_file import Evaluation
from ...engine.predictor import Predictor
from ...evaluation.evaluator import Extracted, keeping_features
from ...evaluation.extraction import extract_features
from ...functional.types import Domain, Epoch
from ...modeling.meta_arch import StudentFeatures
from .folder import RunFolder

logger = logging.getLogger(__name__)

#: Most images of a map or a histogram.
SAMPLE = 1000


@dataclass(frozen=True, eq=False)
class TrainSample:
    """Some training images: rows of ``clusters.csv`` in ascending order, and their features ``(n, D)``."""

    rows: list[int]
    features: Tensor
    when: str


@dataclass(eq=False)
class Material:
    """Features and model of a run; what could not be had is empty, with a sentence in ``missing``.

    Attributes:
        model: as evaluated, in eval mode when it is used.
        tests: what each test set was scored from, by its name in the config.
        train: a sample of the training images.
        paths: where the images of ``clusters.csv`` are now.
        identities: of the images of ``clusters.csv``; None where they are not known.
    """

    model: nn.Module | None = None
    tests: Mapping[str, Extracted] = field(default_factory=dict)
    train: TrainSample | None = None
    paths: Sequence[str] = ()
    identities: list[str] | None = None
    missing: list[str] = field(default_factory=list)


def sample_of(count: int, seed: int = 0, most: int = SAMPLE) -> list[int]:
    """At most ``most`` of ``range(count)`` at random, ascending; the same for the same count and seed."""
    chosen = np.random.default_rng(seed).permutation(count)[:most]
    return sorted(chosen.tolist())


def of_training(trainer: Any, kept: Mapping[str, Extracted]) -> Material:
    """The material of a run that has just ended, without any further extraction."""
    material = Material(trainer.bare_model, dict(kept))
    if trainer.train_data is None:
        return material
    items = trainer.train_data.items
    material.paths = [item[0] for item in items]
    material.identities = _identities(items)
    epoch: Epoch | None = trainer.parts.epoch
    if epoch is not None:
        rows = sample_of(len(items))
        features = torch.zeros(len(items), epoch.day.features.shape[1])
        for domain in Domain:
            features[epoch[domain].indices] = epoch[domain].features.float().cpu()
        if bool(features.any()):
            when = f"Features of the training images at the start of epoch {epoch.number}."
            material.train = TrainSample(rows, features[rows], when)
    return material


def of_folder(run: RunFolder, *, training: bool = True) -> Material:
    """The material of a run by its folder: its weights are read, its images extracted again.

    ``training``: some training images, too.
    """
    material = Material(paths=[row.path for row in run.clusters])
    weights = run.weights()
    if weights is None:
        material.missing.append(
            "The folder has no weights (model_final.pth), so all that needs features is left out."
        )
        return material
    cfg = run.cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS, cfg.MODEL.BACKBONE.PRETRAIN = str(weights), False
    try:
        material.model = Predictor(cfg).model
    except (ValueError, OSError) as error:
        material.missing.append(f"The model cannot be built, so all that needs features is left out: {error}")
        return material
    _extract_tests(cfg, material)
    if training:
        _extract_train(cfg, run, material)
    return material


def _extract_tests(cfg: Any, material: Material) -> None:
    try:
        sets, _ = see_sets(cfg, Evaluation(cfg).see)
        with keeping_features() as kept:
            evaluate_all(cfg, material.model, sets)  # type: ignore[arg-type]
        material.tests = kept
    except (ValueError, OSError) as error:
        material.missing.append(f"The test images are not shown: {error}")


def _extract_train(cfg: Any, run: RunFolder, material: Material) -> None:
    try:
        items = sorted(item for name in cfg.DATASETS.NAMES for item in read_dataset(name).train)
        if [short_path(item[0]) for item in items] != [short_path(row.path) for row in run.clusters]:
            if run.clusters:
                raise DataError("the training images are others than those of clusters.csv")
            return
        material.paths = [item[0] for item in items]
        material.identities = _identities(items)
        rows = sample_of(len(items))
        loader = build_inference_loader(cfg, [items[row] for row in rows])
        encoder: nn.Module = material.model  # type: ignore[assignment]
        if hasattr(encoder, "encode"):
            encoder = StudentFeatures(encoder, feature=cfg.CLUSTER.FEATURE)
        features = extract_features(encoder, loader, flip=cfg.CLUSTER.FLIP, progress="extract for the report")
        material.train = TrainSample(
            rows, features, "Features of the training images by the final model, labels of the last epoch."
        )
    except (ValueError, OSError) as error:
        material.missing.append(f"The map of the training images is left out: {error}")


def _identities(items: Sequence[tuple[Any, ...]]) -> list[str] | None:
    ids = [str(item[1]) for item in items]
    return None if any(one == "-1" or one.endswith("_-1") for one in ids) else ids
