"""The label phase: its policies, the lines that say how far it is, and the estimate before it starts."""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from fastreid.utils import comm

from dnreid_plugins.data import progress
from dnreid_plugins.data.progress import ProgressLine
from dnreid_plugins.engine import label_phase
from dnreid_plugins.engine.distributed import launch
from dnreid_plugins.engine.hooks import LabelPhase
from dnreid_plugins.engine.label_phase import Clusterer, NothingClusteredError, describe
from dnreid_plugins.engine.resources import WORTH_SAYING, label_phase_objection
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.clustering import jaccard_dbscan
from dnreid_plugins.functional.types import EpochClusters


def grouped(num: int, groups: int, *, seed: int = 0, noise: float = 0.05) -> torch.Tensor:
    """``(num, 16)`` unit rows around ``groups`` centres, or anywhere for 0 groups."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(num, 16, generator=generator)
    if groups:
        rows = torch.randn(groups, 16, generator=generator)[torch.arange(num) % groups] + noise * rows
    return torch.nn.functional.normalize(rows, dim=1)


def clustered(clusterer: Clusterer, day: torch.Tensor, night: torch.Tensor) -> EpochClusters:
    domains = torch.tensor([0] * len(day) + [1] * len(night))
    return clusterer(torch.cat([day, night]), domains, epoch=3, max_epoch=9)


# ------------------------------------------------------------------ policies


def test_each_domain_is_clustered_by_itself_in_canonical_order() -> None:
    features, domains = grouped(200, 8), torch.arange(200) % 2
    found = Clusterer(k1=8)(features, domains, epoch=3, max_epoch=9)
    assert (found.epoch, found.max_epoch) == (3, 9)
    for domain in (0, 1):
        part = found[domain]
        assert part.indices.tolist() == list(range(domain, 200, 2)) and part.num_clusters == 4
        own = features[domains == domain]
        np.testing.assert_array_equal(part.labels.numpy(), jaccard_dbscan(own, k1=8))
        torch.testing.assert_close(part.centroids.norm(dim=1), torch.ones(4))


def test_widening_stops_at_the_first_radius_that_finds_something(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One search serves all radii; the labels are those of a search at the radius that was found."""
    searches = []
    search = label_phase.knn_table
    monkeypatch.setattr(
        label_phase, "knn_table", lambda rows, *a, **k: searches.append(len(rows)) or search(rows, *a, **k)
    )
    day, night = grouped(60, 4), grouped(90, 0, seed=1)
    found = clustered(Clusterer(k1=8, eps=0.3), day, night)
    labels = found.night.labels.numpy()
    assert searches == [60, 90]
    radii = [round(0.3 + 0.05 * step, 2) for step in range(1, 13)]
    best = next(eps for eps in radii if jaccard_dbscan(night, k1=8, eps=eps).max() >= 0)
    assert best > 0.35 and jaccard_dbscan(night, k1=8, eps=0.3).max() < 0
    np.testing.assert_array_equal(labels, jaccard_dbscan(night, k1=8, eps=best))
    assert f"NIGHT: nothing clustered at eps 0.30, widened to {best:.2f}." in caplog.text


def test_a_domain_without_a_cluster_is_skipped_or_stops_the_run(caplog: pytest.LogCaptureFixture) -> None:
    day, night = grouped(60, 4), grouped(90, 0, seed=1)
    found = clustered(Clusterer(k1=8, eps=0.3, on_empty="skip"), day, night)
    assert found.day.num_clusters >= 4 and found.night.num_clusters == 0
    assert found.night.centroids.shape == (0, 16) and set(found.night.labels.tolist()) == {-1}
    assert "night: none of 90 images is in a cluster (eps 0.30); the domain is left out" in caplog.text
    figures = describe(found)
    assert (figures["night/clusters"], figures["night/clustered"], figures["night/largest"]) == (0, 0, 0)
    with pytest.raises(NothingClusteredError, match="night: none of 90 images.*'stop'"):
        clustered(Clusterer(k1=8, eps=0.3, on_empty="stop"), day, night)
    with pytest.raises(NothingClusteredError, match="No cluster in either domain at epoch 3"):
        clustered(Clusterer(k1=8, eps=0.3, on_empty="skip"), night, night)


@pytest.mark.parametrize("images", [0, 1, 3])
def test_a_domain_of_hardly_any_image_is_no_error(images: int) -> None:
    found = clustered(Clusterer(k1=8, min_samples=4), grouped(60, 4), grouped(images, 0))
    assert found.night.labels.tolist() == [-1] * images and found.night.num_clusters == 0


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="CLUSTER.ON_EMPTY is 'shrug'; it is 'widen', 'skip' or 'stop'"):
        Clusterer(on_empty="shrug")


# ------------------------------------------------------------------ progress


class Clock:
    """Gives the seconds it was told, one after the other."""

    def __init__(self, *seconds: float) -> None:
        self.seconds: Iterator[float] = iter(seconds)

    def __call__(self) -> float:
        return next(self.seconds)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == progress.__name__]


def test_lines_come_four_seconds_apart_with_the_time_to_go(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    line = ProgressLine("Search", clock=Clock(100, 101, 103.9, 104, 107, 109, 112.9, 120))
    for done in (1, 9, 10, 15, 20, 30, 40):
        line(done, 40)
    assert lines(caplog) == [
        "Search: 25 % after 4 s, about 12 s to go",
        "Search: 50 % after 9 s, about 9 s to go",
    ]


def test_a_short_search_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    line = ProgressLine("Search", clock=Clock(*range(4)))
    for done in range(1, 4):
        line(done, 3)
    clustered(Clusterer(k1=8), grouped(60, 4), grouped(60, 4))
    assert lines(caplog) == []


def test_the_search_of_each_domain_reports(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """2,100 images are three blocks of rows and six products, the last of which says nothing."""
    quiet = clustered(Clusterer(k1=8), grouped(2100, 50), grouped(60, 4))
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    loud = clustered(Clusterer(k1=8), grouped(2100, 50), grouped(60, 4))
    assert [text.split("%")[0] for text in lines(caplog)] == [
        f"Label phase, neighbours among 2100 day images: {share} " for share in (16, 33, 50, 66, 83)
    ]
    assert torch.equal(loud.day.labels, quiet.day.labels)


def label_phase_of_this_process(_: Namespace) -> tuple[list[str], list[int]]:
    """What this process logs while all of them make the labels together, and the labels it gets."""
    found: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    class Checkpoints:
        def stop_if_asked(self) -> None: ...

    class Trainer:
        max_epoch = 9
        checkpoints = Checkpoints()

    progress.EVERY = 0.0
    progress.logger.addHandler(Keep())
    progress.logger.setLevel(logging.INFO)
    features, domains = grouped(1100, 20), torch.tensor([0] * 1050 + [1] * 50)
    phase = LabelPhase(extract=lambda: features, clusterer=Clusterer(k1=8), domains=domains, true_ids=None)
    phase.trainer = Trainer()
    labels = phase._cluster(3).day.labels.tolist()
    return comm.all_gather((found, labels))


@pytest.mark.slow
def test_of_several_processes_only_the_main_one_searches_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first, second = launch(label_phase_of_this_process, 2, args=(Namespace(opts=["MODEL.DEVICE", "cpu"]),))
    assert len(first[0]) == 2 and "1050 day images: 33 %" in first[0][0]
    assert second[0] == []
    assert first[1] == second[1] and max(first[1]) > 5


# ------------------------------------------------------------------ estimate


@pytest.mark.parametrize(("images", "said"), [(WORTH_SAYING // 2, False), (WORTH_SAYING // 2 + 1, True)])
def test_a_large_label_phase_is_announced_with_memory_and_time(
    images: int, said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert label_phase_objection((images, images), 2048, None, k1=30) is None
    texts = [r.getMessage() for r in caplog.records if r.getMessage().startswith("Label phase:")]
    assert len(texts) == said
    if said:
        assert f"Label phase: {2 * images} images, about 0." in texts[0] and " s per epoch" in texts[0]


def test_the_trainer_announces_it_before_the_first_epoch(
    tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dnreid_plugins.engine.resources.WORTH_SAYING", 10)
    said: list[Any] = []
    monkeypatch.setattr("dnreid_plugins.engine.resources.logger.info", lambda *args: said.append(args))
    CrossDomainTrainer(tiny_cfg)
    assert [args[1] for args in said] == [72]
