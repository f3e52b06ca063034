"""Faults of the label phase in mid-training: training goes on by the named policy, says so, and recovers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.engine.train_loop import HookBase
from ledger import record
from run_helpers import label_phase
from torch import Tensor

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.neighbours.knn import Neighbours
from dnreid_plugins.functional.types import Assignment, Clusters, Domain, Epoch
from dnreid_plugins.labels import DomainClusters, LabelSource, NothingClusteredError, TrainImages
from dnreid_plugins.labels.clusters import widened_radii

EPOCHS = 4
#: Config overrides; the first is the quick version's.
METHODS: dict[str, list[Any]] = {
    "CIA": ["MODEL.LOSSES.NAME", ["ClusterNCE", "MAA", "DGM"], "MODEL.LOSSES.DGM.MATCH_ALWAYS", True],
    "Base": ["MODEL.LOSSES.NAME", ["ClusterNCE"], "MODEL.DUAL_STREAM.SHARED_BN", "separate"],
    "paired": ["MODEL.LOSSES.NAME", ["ClusterNCE", "DGM"], "DATALOADER.PAIRED", True],
    "baselines": ["MODEL.LOSSES.NAME", ["ClusterNCE", "PGM", "CMA", "MMD", "MarginMMD"]],
}
METHODS["Bridging"] = [
    *["MODEL.LOSSES.NAME", ["ClusterNCE", "PrototypeClassifier", "ImageText", "CPML"]],
    *["PROMPT_STAGE.EPOCHS", 0],
]
METHODS["CIA"] += ["MODEL.LOSSES.DGM.ON_EMPTY", "keep_last"]
METHODS["paired"] += ["MODEL.MEMORY.OUTLIER_ROWS", True]
EVERY_WEIGHT = [
    item for name in ("DGM", "PGM", "CMA") for item in (f"MODEL.LOSSES.{name}.WEIGHT", [[1, 0.3]])
]
#: Epochs that the fault hits; the last of the run stays sound.
WINDOWS = [(2,), (1,), (2, 3), (1, 2, 3)]
quick_and_long = pytest.mark.parametrize(
    ("methods", "windows"),
    [(["CIA"], WINDOWS[:1]), pytest.param(list(METHODS), WINDOWS, marks=pytest.mark.stress)],
    ids=["quick", "long"],
)


# ------------------------------------------------------------------ faults


class Outliers(DomainClusters):
    """DBSCAN finds nothing in the domains ``hit`` below the radius ``up_to``."""

    hit: tuple[Domain, ...] = ()
    up_to: float = 1.0

    def _cluster(self, features: Tensor, places: dict[str, Tensor]) -> dict[str, Clusters]:
        self.rows = [features[places[domain.word]] for domain in self.hit]
        return super()._cluster(features, places)

    def _labels(self, features: Tensor, found: Neighbours, eps: float) -> np.ndarray:
        if eps < self.up_to and any(torch.equal(features, rows) for rows in self.rows):
            return np.full(len(features), -1, dtype=np.int64)
        return super()._labels(features, found, eps)


class Pairs(DomainClusters):
    """Clusters of two images each, fewer than a batch wants of a cluster."""

    def _labels(self, features: Tensor, found: Neighbours, eps: float) -> np.ndarray:
        return np.arange(len(features), dtype=np.int64) // 2


Spoil = Callable[[DomainClusters, Tensor, Tensor], tuple[DomainClusters, Tensor]]


def outliers(*hit: Domain, up_to: float = 1.0) -> Spoil:
    def spoil(source: DomainClusters, features: Tensor, domains: Tensor) -> tuple[DomainClusters, Tensor]:
        spoiled = Outliers(**vars(source))
        spoiled.hit, spoiled.up_to = hit, up_to
        return spoiled, features

    return spoil


def one_point(source: DomainClusters, features: Tensor, domains: Tensor) -> tuple[DomainClusters, Tensor]:
    """All night images have the very same feature."""
    features[domains == Domain.NIGHT] = features[domains == Domain.NIGHT][:1].clone()
    return source, features


def around_one_point(*hit: Domain) -> Spoil:
    def spoil(source: DomainClusters, features: Tensor, domains: Tensor) -> tuple[DomainClusters, Tensor]:
        noise = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
        for domain in hit:
            own = domains == domain
            features[own] = F.normalize(features[own][:1] + 0.01 * noise[own], dim=1)
        # As many neighbours as images: no structure is left inside the domain.
        return DomainClusters(**{**vars(source), "k1": len(features)}), features

    return spoil


def apart(source: DomainClusters, features: Tensor, domains: Tensor) -> tuple[DomainClusters, Tensor]:
    """Every day feature is far from every night feature; within a domain all stays as it was."""
    features[:, 0] = torch.where(domains == Domain.DAY, 3.0, -3.0)
    return source, F.normalize(features, dim=1)


def untouched(source: DomainClusters, features: Tensor, domains: Tensor) -> tuple[DomainClusters, Tensor]:
    return source, features


def pairs(source: DomainClusters, features: Tensor, domains: Tensor) -> tuple[DomainClusters, Tensor]:
    return Pairs(**vars(source)), features


@dataclass(frozen=True)
class Case:
    """A fault and what must be seen of it.

    Attributes:
        spoil: what happens to label source and features.
        said: a part of the log, empty where the health line alone tells it.
        health: key of the health line -> value in an epoch of the fault (of those keys that a method has).
        opts: config overrides.
        methods: those that the fault can hit; empty = all.
    """

    spoil: Spoil
    said: str = ""
    health: dict[str, float] = field(default_factory=dict)
    opts: tuple[Any, ...] = ()
    methods: tuple[str, ...] = ()


SMALL_BATCHES = ("SOLVER.IMS_PER_BATCH", 16, "DATALOADER.NUM_INSTANCE", 4)
CASES = {
    "a domain collapses to one point": Case(
        one_point, "1 night clusters for 4 places: they repeat", {"night/clusters": 1}
    ),
    "a domain is one cluster": Case(
        around_one_point(Domain.NIGHT),
        "1 night clusters for 4 places: they repeat",
        {"night/clusters": 1, "night/clustered": 100},
    ),
    "all images in one cluster per domain": Case(
        around_one_point(*Domain),
        "loss_clusternce has gradient exactly 0 at the encoder",
        {"day/clusters": 1, "night/clusters": 1},
    ),
    "all outliers in a domain, policy widen": Case(
        outliers(Domain.NIGHT, up_to=0.7),
        "NIGHT: nothing clustered at eps 0.60, widened to 0.70",
        {},
    ),
    "all outliers in a domain, policy widen ends in skip": Case(
        outliers(Domain.DAY),
        "day: none of 36 images is in a cluster (eps 0.90); the domain is left out of this epoch",
        {"day/clusters": 0, "day/clustered": 0, "DGM/pairs": 0, "PGM/pairs": 0, "CMA/pairs": 0},
    ),
    "all outliers in a domain, policy skip": Case(
        outliers(Domain.NIGHT, up_to=0.7),
        "night: none of 36 images is in a cluster (eps 0.60); the domain is left out of this epoch",
        {"night/clusters": 0, "DGM/pairs": 0},
        ("CLUSTER.ON_EMPTY", "skip"),
    ),
    # CPML takes the nearest whatever their distance, so it always has pairs.
    "no pair of clusters matches": Case(
        apart, "", {"DGM/edges": 0, "CMA/pairs": 0}, methods=("CIA", "paired", "baselines")
    ),
    "every neighbour is mutual, no hard negative left": Case(
        untouched, "", {"CPML/hard_negatives": 0}, ("MODEL.LOSSES.CPML.TOP_K", 999), ("Bridging",)
    ),
    "clusters smaller than the batch wants": Case(
        pairs, "", {"day/largest": 2, "night/largest": 2}, SMALL_BATCHES
    ),
}


class Spoiled(LabelSource):
    """A trainer's label source with a fault in some epochs."""

    def __init__(self, source: DomainClusters, spoil: Spoil, epochs: tuple[int, ...]) -> None:
        self.source, self.spoil, self.epochs = source, spoil, epochs

    @classmethod
    def put_in(cls, trainer: CrossDomainTrainer, spoil: Spoil, epochs: tuple[int, ...]) -> None:
        labels: Any = label_phase(trainer).labels
        labels.source = cls(labels.source, spoil, epochs)

    def __call__(self, features: Tensor, images: TrainImages, *, epoch: int) -> dict[str, Clusters]:
        source = self.source
        if epoch in self.epochs:
            source, features = self.spoil(source, features.clone(), images.domains)
        return source(features, images, epoch=epoch)


# ------------------------------------------------------------------ runs


def configured(base: CfgNode, method: str, folder: Path, opts: tuple[Any, ...] = ()) -> CfgNode:
    cfg = base.clone()
    if method == "Bridging":
        cfg.merge_from_file(str(Path(__file__).resolve().parents[1] / "tiny_bridging.yml"))
    cfg.merge_from_list([*EVERY_WEIGHT, *METHODS[method], *opts, "SOLVER.MAX_EPOCH", EPOCHS])
    cfg.merge_from_list(["AUDIT.PERIOD", 1, "SOLVER.STEPS", [], "DATALOADER.ITERS_PER_EPOCH", 2])
    cfg.DATASETS.TESTS, cfg.OUTPUT_DIR = (), str(folder)
    return cfg


def health(folder: Path) -> dict[int, dict[str, float]]:
    rows = [json.loads(line) for line in (folder / "health.jsonl").read_text().splitlines()]
    return {row["epoch"]: row for row in rows}


def shortfalls(cfg: CfgNode, case: Case, window: tuple[int, ...], caplog: Any) -> list[str]:
    """Train through the fault; what was not as the policy promises."""
    caplog.clear()
    trainer = CrossDomainTrainer(cfg)
    Spoiled.put_in(trainer, case.spoil, window)
    start = [p.detach().clone() for p in trainer.bare_model.parameters()]
    with caplog.at_level(logging.INFO, logger="dnreid_plugins"):
        trainer.train()
    seen, found = health(Path(cfg.OUTPUT_DIR)), []
    for epoch in window:
        wrong = {k: seen[epoch][k] for k, v in case.health.items() if seen[epoch].get(k, v) != v}
        found += [f"epoch {epoch}: {wrong}"] if wrong else []
    if not set(case.health) & set(seen[window[0]]) and case.health:
        found.append(f"the health line has none of {list(case.health)}")
    if case.said not in caplog.text:
        found.append(f"nobody said {case.said!r}")
    last = seen[EPOCHS]
    if min(last["day/clusters"], last["night/clusters"]) < 2:
        found.append(f"no recovery: {last}")
    end = list(trainer.bare_model.parameters())
    if not all(bool(torch.isfinite(p).all()) for p in end):
        found.append("weights are not finite")
    if all(torch.equal(a, b) for a, b in zip(start, end)):
        found.append("no weight moved")
    return found


@quick_and_long
@pytest.mark.parametrize("name", CASES)
def test_training_goes_on_by_policy_and_says_so(
    tiny_cfg: CfgNode, tmp_path: Path, caplog: Any, name: str, methods: list[str], windows: list[Any]
) -> None:
    case = CASES[name]
    wanted = case.methods or tuple(METHODS)
    lost = []
    tried = 0
    for method in [m for m in methods if m in wanted] or wanted[:1]:
        for number, window in enumerate(windows):
            tried += 1
            cfg = configured(tiny_cfg, method, tmp_path / f"{method}{number}", case.opts)
            if found := shortfalls(cfg, case, window, caplog):
                lost.append(f"{method} in epochs {window}: {'; '.join(found)}")
    if tried > 1:
        record("label phase", name, tried=tried, survived=tried - len(lost), lost="; ".join(lost))
    assert lost == []


def test_widening_tries_every_radius_up_to_the_widest() -> None:
    assert widened_radii(0.6) == [0.65, 0.7, 0.75, 0.8, 0.85, 0.9]
    assert widened_radii(0.3)[-1] == 0.9 and len(widened_radii(0.3)) == 12
    assert widened_radii(0.87) == widened_radii(0.9) == widened_radii(0.95) == []
    assert widened_radii(0.84) == [0.89]


@pytest.mark.parametrize("policy", ["skip", "keep_last", "cap"])
@pytest.mark.parametrize("windows", [WINDOWS[:1], pytest.param(WINDOWS, marks=pytest.mark.stress)])
def test_an_empty_matching_follows_its_policy(
    tiny_cfg: CfgNode, tmp_path: Path, caplog: Any, policy: str, windows: list[Any]
) -> None:
    """``keep_last`` goes on with the pairs of the epoch before, if there were any; the others have none."""
    lost = []
    for number, window in enumerate(windows):
        folder = tmp_path / str(number)
        cfg = configured(tiny_cfg, "CIA", folder, ("MODEL.LOSSES.DGM.ON_EMPTY", policy))
        found = shortfalls(cfg, CASES["no pair of clusters matches"], window, caplog)
        rows = health(folder)
        kept = policy == "keep_last" and window[0] > 1
        wrong = [e for e in window if (rows[e]["DGM/pairs"] > 0) != kept]
        if found or wrong:
            lost.append(f"{window}: {found}, pairs {[rows[e]['DGM/pairs'] for e in wrong]}")
    if len(windows) > 1:
        fault = f"empty matching, policy {policy}"
        tried = len(windows)
        record("label phase", fault, tried=tried, survived=tried - len(lost), lost="; ".join(lost))
    assert lost == []


def test_batches_without_a_matched_image_train_on(tiny_cfg: CfgNode, tmp_path: Path) -> None:
    """One pair of clusters is matched; a batch without them has a matching loss of exactly 0 and a gradient."""
    cfg = configured(tiny_cfg, "CIA", tmp_path, ("SOLVER.IMS_PER_BATCH", 4, "DATALOADER.ITERS_PER_EPOCH", 8))
    trainer = CrossDomainTrainer(cfg)
    matcher = trainer.bare_model.parts.losses["DGM"].matcher
    match, seen = matcher.match, []

    def one_pair(epoch: Epoch, *, first: int) -> tuple[Assignment, dict[str, float]]:
        _, figures = match(epoch, first=first)
        sizes = (epoch.day.num_clusters, epoch.night.num_clusters)
        return Assignment.from_pairs(torch.tensor([[0, 0]]), torch.ones(1), *sizes), figures

    class Look(HookBase):
        def losses_ready(self, losses: dict[str, Tensor]) -> None:
            matched = bool((trainer.bare_model.last_batch.targets == 0).any())
            total = sum(losses.values()).detach()
            seen.append((matched, float(losses["loss_dgm"].detach()), float(total)))

    matcher.match = one_pair
    trainer.register_hooks([Look()])
    trainer.train()
    assert {matched for matched, _, _ in seen} == {True, False}
    for matched, loss, total in seen:
        assert (loss > 0) == matched and np.isfinite(total)


@pytest.mark.parametrize("epochs", [[3], pytest.param([2, 3, 4], marks=pytest.mark.stress)])
@pytest.mark.parametrize("on_empty", ["widen", "stop"])
def test_where_no_policy_can_go_on_the_run_ends_with_a_sentence_and_loses_nothing(
    tiny_cfg: CfgNode, tmp_path: Path, on_empty: str, epochs: list[int]
) -> None:
    """No cluster in either domain, or policy stop: the state of the epoch's border is there for --resume."""
    hit = (Domain.NIGHT,) if on_empty == "stop" else tuple(Domain)
    opts = ("CLUSTER.ON_EMPTY", on_empty)
    whole = CrossDomainTrainer(configured(tiny_cfg, "CIA", tmp_path / "whole", opts))
    whole.train()
    expected, lost = whole.bare_model.state_dict(), []
    for epoch in epochs:
        cfg = configured(tiny_cfg, "CIA", tmp_path / str(epoch), opts)
        cut = CrossDomainTrainer(cfg)
        Spoiled.put_in(cut, outliers(*hit), (epoch,))
        with pytest.raises(NothingClusteredError, match="CLUSTER"):
            cut.train()
        again = CrossDomainTrainer(cfg)
        again.resume_or_load(resume=True)
        assert again.iter == 2 * (epoch - 1)
        again.train()
        got = again.bare_model.state_dict()
        if different := [key for key in expected if not torch.equal(expected[key], got[key])]:
            lost.append(f"epoch {epoch}: {different}")
    if len(epochs) > 1:
        fault = (
            "a domain without cluster, policy stop" if on_empty == "stop" else "no cluster in either domain"
        )
        fault += ": ends with a sentence, resumes exactly"
        tried = len(epochs)
        record("label phase", fault, tried=tried, survived=tried - len(lost), lost="; ".join(lost))
    assert lost == []
