"""Settings for images that nobody has trained on yet: from the features of the start, and from a few timed steps."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fastreid.modeling.meta_arch import build_model
from numpy.typing import NDArray
from torch import Tensor

from ...data.datasets import configure as configure_datasets
from ...data.loaders import build_train_loader
from ...data.train_data import TrainData, build_train_data
from ...evaluation.extraction import extract_features
from ...functional.neighbours.jaccard import jaccard_graph
from ...functional.neighbours.knn import knn_table
from ...functional.neighbours.radius import RADII, dbscan_auto, k_distances
from ...functional.types import Domain
from ...modeling.meta_arch import StudentFeatures
from ...runtime.devices import GIB, use_device
from ...runtime.progress import ProgressLine, duration
from .. import preflight
from ..preflight.model import needs_clusters
from ..preflight.resources import checkpoint_bytes, trial_batch

#: Neighbours per image of a cluster; the shipped configs have 12 for 20 images and 30 for 50.
NEIGHBOURS_PER_IMAGE = 0.6
SMALLEST_K1, LARGEST_K1 = 6, 30
#: Radii of the two domains that differ by more than this have no mean that serves both.
SAME_RADIUS = 0.1
#: Distances up to this one are drawn.
FARTHEST = 0.9
#: Timed steps; one more goes before them.
STEPS = 3


@dataclass(frozen=True)
class Choice:
    """One proposal: the value for a config key, and in one sentence why. Without a key it is only told."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class DomainView:
    """What the start sees in one domain.

    Attributes:
        images: how many.
        clusters, clustered: number of clusters, and of images in them, at ``radius``.
        size: images of the median cluster; 0 = none.
        radius: up to 0.1 above that of the most distinct clusters (`dbscan_auto`).
        curve: ``(N,)`` float32, Jaccard distance of each image to the neighbour that makes it a core, ascending.
    """

    images: int
    clusters: int
    clustered: int
    size: int
    radius: float
    curve: NDArray[np.float32]


@dataclass(frozen=True)
class Suggestion:
    """The proposals in the order in which they are shown, and what they come from."""

    choices: tuple[Choice, ...]
    views: dict[Domain, DomainView]


def suggest(cfg: Any) -> Suggestion:
    """Propose settings for the images of ``DATASETS.NAMES`` with the model and start weights of ``cfg``.

    Nothing is written and nothing is trained: the weights are those of the start, except within the timed steps.

    Args:
        cfg: a merged config with pseudo labels; frozen or not, it stays as it is.

    Raises:
        ValueError: wrong settings, unreadable or too few images, or no cluster in either domain.
    """
    cfg = _quiet(cfg)
    preflight.check(cfg)
    if not needs_clusters(cfg):
        raise ValueError(
            f"MODEL.META_ARCHITECTURE {cfg.MODEL.META_ARCHITECTURE} learns from identities and has no clusters to "
            "propose settings for; name an unsupervised system (`dnreid methods` lists them)."
        )
    use_device(cfg.MODEL.DEVICE)
    configure_datasets(cfg)
    data = build_train_data(cfg)
    _refuse_few(data, cfg.CLUSTER.MIN_SAMPLES)
    torch.manual_seed(cfg.SEED)
    model = build_model(cfg)
    features, extraction = _timed_features(cfg, model, data)
    began = time.perf_counter()
    views = _views(features, data, cfg, cfg.CLUSTER.K1, cfg.CLUSTER.K2)
    k1, k2 = _neighbours(views)
    views = _views(features, data, cfg, k1.value, k2.value)
    labelling = (time.perf_counter() - began) / 2
    if not any(view.clusters for view in views.values()):
        raise ValueError(
            f"The start finds no cluster among {len(data)} images, at no radius from {RADII[0]} to {RADII[-1]}; use "
            "stronger start weights (MODEL.BACKBONE.PRETRAIN_PATH) or more images of each vehicle."
        )
    instances, batch = _batch(cfg, views)
    steps = _iterations(views, batch.value)
    step = _timed_steps(cfg, model, data, batch.value)
    costs = _costs(cfg, model, extraction + labelling, step, steps.value)
    return Suggestion((k1, k2, _radius(views), instances, batch, steps, *costs), views)


def _quiet(cfg: Any) -> Any:
    """A copy that writes nothing and scores nothing."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR, cfg.DATASETS.TESTS = "", ()
    cfg.freeze()
    return cfg


def _refuse_few(data: TrainData, min_samples: int) -> None:
    for domain in Domain:
        count = int((data.images.domains == domain).sum())
        if count < 2 * min_samples:
            raise ValueError(
                f"There are {count} {domain.word} images; two clusters need at least {2 * min_samples} "
                "(twice CLUSTER.MIN_SAMPLES), so add images."
            )


def _timed_features(cfg: Any, model: Any, data: TrainData) -> tuple[Tensor, float]:
    began = time.perf_counter()
    student = StudentFeatures(model, feature=cfg.CLUSTER.FEATURE)
    features = extract_features(
        student, data.inference_loader, flip=cfg.CLUSTER.FLIP, progress="Features of the start"
    )
    return features, time.perf_counter() - began


def _views(features: Tensor, data: TrainData, cfg: Any, k1: int, k2: int) -> dict[Domain, DomainView]:
    return {
        domain: _view(features[data.images.domains == domain], cfg.CLUSTER.MIN_SAMPLES, k1, k2, domain.word)
        for domain in Domain
    }


def _view(features: Tensor, min_samples: int, k1: int, k2: int, name: str) -> DomainView:
    line = ProgressLine(f"Neighbours among {len(features)} {name} images")
    found = knn_table(features, k1, progress=line)
    graph = jaccard_graph(features, k1=k1, k2=k2, radius=FARTHEST, knn=found)
    (labels,), radius = dbscan_auto([graph], [features], min_samples=min_samples)
    sizes = np.bincount(labels[labels >= 0])
    curve = np.sort(k_distances(graph, min_samples))
    size = int(np.median(sizes)) if len(sizes) else 0
    return DomainView(len(features), len(sizes), int(sizes.sum()), size, radius, curve)


def _neighbours(views: dict[Domain, DomainView]) -> tuple[Choice, Choice]:
    """K1 and K2. The domain with the larger clusters says how many images a vehicle has: those of the other one are
    in pieces."""
    size = max(view.size for view in views.values())
    most = min(LARGEST_K1, min(view.images for view in views.values()))
    k1 = min(max(round(NEIGHBOURS_PER_IMAGE * size), SMALLEST_K1), most)
    reason = (
        f"The start's typical cluster has {size} images, and K1 should stay below the images of one vehicle."
    )
    k2 = min(6, k1)
    return Choice("CLUSTER.K1", k1, reason), Choice(
        "CLUSTER.K2", k2, "The usual 6, or K1 where that is less."
    )


def _radius(views: dict[Domain, DomainView]) -> Choice:
    day, night = views[Domain.DAY], views[Domain.NIGHT]
    text = (
        f"Good radii for the features of the start are {day.radius:g} by day ({day.clusters} clusters) and "
        f"{night.radius:g} by night ({night.clusters})"
    )
    if abs(day.radius - night.radius) > SAME_RADIUS + 1e-9:
        reason = f"{text}, too far apart for one radius."
        return Choice("CLUSTER.EPS", "auto", reason)
    return Choice("CLUSTER.EPS", round((day.radius + night.radius) / 2, 2), f"{text}; this is the mean.")


def _batch(cfg: Any, views: dict[Domain, DomainView]) -> tuple[Choice, Choice]:
    """NUM_INSTANCE and IMS_PER_BATCH: those of the config, less where a domain has fewer clusters or smaller ones."""
    with_clusters = [view for view in views.values() if view.clusters]
    size, clusters = (min(getattr(view, name) for view in with_clusters) for name in ("size", "clusters"))
    instances = max(min(cfg.DATALOADER.NUM_INSTANCE, size), 2)
    reason = f"So many images of each cluster; the typical cluster of the poorer domain has {size}."
    most = max(cfg.SOLVER.IMS_PER_BATCH // (2 * instances), 1)
    drawn = min(most, clusters)
    why = (
        f"The config's {most} clusters of each domain"
        if drawn == most
        else f"All {drawn} clusters of a domain"
    )
    batch = Choice("SOLVER.IMS_PER_BATCH", 2 * drawn * instances, f"{why}, {instances} images of each.")
    return Choice("DATALOADER.NUM_INSTANCE", instances, reason), batch


def _iterations(views: dict[Domain, DomainView], batch: int) -> Choice:
    clustered = sum(view.clustered for view in views.values())
    steps = max(clustered // batch, 1)
    return Choice(
        "DATALOADER.ITERS_PER_EPOCH", steps, f"Each of the {clustered} clustered images comes about once."
    )


def _timed_steps(cfg: Any, model: Any, data: TrainData, batch: int) -> float:
    """Seconds of a step: a batch through loader and augmentation, and one forward and backward through the encoder.

    Raises:
        ValueError: the batch does not fit into memory.
    """
    places = np.linspace(0, len(data) - 1, batch).astype(int).tolist()
    loader = build_train_loader(cfg, data.items, [[(place, 0) for place in places]] * (STEPS + 1))  # type: ignore[arg-type]
    ends = []
    for _ in loader:
        if text := trial_batch(model, batch, cfg.INPUT.SIZE_TRAIN):
            raise ValueError(text)
        ends.append(time.perf_counter())
    return statistics.median(np.diff(ends).tolist())


def _costs(cfg: Any, model: Any, label_phase: float, step: float, steps: int) -> tuple[Choice, Choice]:
    """Time and memory of an epoch on this machine."""
    epoch = label_phase + steps * step
    parts = f"{label_phase:.1f} s for features and labels and {steps} steps of {step:.2f} s, measured without losses"
    whole = f"{cfg.SOLVER.MAX_EPOCH} epochs take about {duration(cfg.SOLVER.MAX_EPOCH * epoch)}"
    memory = (_peak_memory(model) + checkpoint_bytes(model, cfg.SOLVER.OPT)) / GIB
    where = "on the GPU" if model.device.type == "cuda" else "of this process"
    return (
        Choice("", f"time per epoch: {duration(epoch)}", f"{parts}; {whole}."),
        Choice("", f"memory: {memory:.1f} GiB", f"The peak {where} until here, plus weights and optimizer."),
    )


def _peak_memory(model: Any) -> int:
    if model.device.type == "cuda":
        return torch.cuda.max_memory_allocated(model.device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
