"""Clusters of each domain: what the policies do, and the lines that say how far the search is."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from grouped_rows import grouped, images, labelled

from dnreid_plugins.functional.neighbours.clustering import jaccard_dbscan
from dnreid_plugins.functional.types import Epoch
from dnreid_plugins.labels import DomainClusters, Labels, NothingClusteredError, UnionClusters, clusters
from dnreid_plugins.labels.build import describe
from dnreid_plugins.runtime import progress


def test_each_domain_is_clustered_by_itself_in_canonical_order() -> None:
    features, domains = grouped(200, 8), torch.arange(200) % 2
    epoch = Labels(DomainClusters(k1=8))(features, images(domains), number=3, last=9)
    assert (epoch.number, epoch.last) == (3, 9) and list(epoch.clusters) == ["day", "night"]
    for domain in (0, 1):
        part = epoch[domain]
        assert part.indices.tolist() == list(range(domain, 200, 2)) and part.num_clusters == 4
        own = features[domains == domain]
        np.testing.assert_array_equal(part.labels.numpy(), jaccard_dbscan(own, k1=8))
        torch.testing.assert_close(part.centroids.norm(dim=1), torch.ones(4))


def test_widening_stops_at_the_first_radius_that_finds_something(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One search serves all radii; the labels are those of a search at the radius that was found."""
    searches = []
    search = clusters.knn_table
    monkeypatch.setattr(
        clusters, "knn_table", lambda rows, *a, **k: searches.append(len(rows)) or search(rows, *a, **k)
    )
    day, night = grouped(60, 4), grouped(90, 0, seed=1)
    found = labelled(DomainClusters(k1=8, eps=0.3), day, night)
    labels = found.night.labels.numpy()
    assert searches == [60, 90]
    radii = [round(0.3 + 0.05 * step, 2) for step in range(1, 13)]
    best = next(eps for eps in radii if jaccard_dbscan(night, k1=8, eps=eps).max() >= 0)
    assert best > 0.35 and jaccard_dbscan(night, k1=8, eps=0.3).max() < 0
    np.testing.assert_array_equal(labels, jaccard_dbscan(night, k1=8, eps=best))
    assert f"NIGHT: nothing clustered at eps 0.30, widened to {best:.2f}." in caplog.text


def test_a_domain_without_a_cluster_is_skipped_or_stops_the_run(caplog: pytest.LogCaptureFixture) -> None:
    day, night = grouped(60, 4), grouped(90, 0, seed=1)
    found = labelled(DomainClusters(k1=8, eps=0.3, on_empty="skip"), day, night)
    assert found.day.num_clusters >= 4 and found.night.num_clusters == 0
    assert found.night.centroids.shape == (0, 16) and set(found.night.labels.tolist()) == {-1}
    assert "night: none of 90 images is in a cluster (eps 0.30); the domain is left out" in caplog.text
    figures = describe(found, images(torch.tensor([0] * 60 + [1] * 90)))
    assert (figures["night/clusters"], figures["night/clustered"], figures["night/largest"]) == (0, 0, 0)
    with pytest.raises(NothingClusteredError, match="night: none of 90 images.*'stop'"):
        labelled(DomainClusters(k1=8, eps=0.3, on_empty="stop"), day, night)
    with pytest.raises(NothingClusteredError, match="No cluster in either domain at epoch 3"):
        labelled(DomainClusters(k1=8, eps=0.3, on_empty="skip"), night, night)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_domain_of_hardly_any_image_is_no_error(count: int) -> None:
    found = labelled(DomainClusters(k1=8, min_samples=4), grouped(60, 4), grouped(count, 0))
    assert found.night.labels.tolist() == [-1] * count and found.night.num_clusters == 0


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(
        ValueError, match="CLUSTER.ON_EMPTY is 'shrug'; it must be one of 'widen', 'skip', 'stop'"
    ):
        DomainClusters(on_empty="shrug")  # type: ignore[arg-type]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == progress.__name__]


def test_a_short_search_says_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    labelled(DomainClusters(k1=8), grouped(60, 4), grouped(60, 4))
    assert lines(caplog) == []


def test_the_search_of_each_domain_reports(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """2,100 images are three blocks of rows and six products, the last of which says nothing."""
    quiet = labelled(DomainClusters(k1=8), grouped(2100, 50), grouped(60, 4))
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(progress, "EVERY", 0.0)
    loud = labelled(DomainClusters(k1=8), grouped(2100, 50), grouped(60, 4))
    assert [text.split("%")[0] for text in lines(caplog)] == [
        f"Label phase, neighbours among 2100 day images: {share} " for share in (16, 33, 50, 66, 83)
    ]
    assert torch.equal(loud.day.labels, quiet.day.labels)


def test_a_union_is_clustered_as_one_set_and_cut_into_domains() -> None:
    features = grouped(100, 4)
    domains = torch.tensor([0] * 60 + [1] * 40)
    source = UnionClusters(k1=8)
    found = source(features, images(domains), epoch=1)
    alone = DomainClusters(k1=8)(features, images(torch.zeros_like(domains)), epoch=1)["day"]
    joint = found["joint"]
    assert torch.equal(joint.labels, alone.labels) and torch.equal(joint.centroids, alone.centroids)
    assert Epoch(1, 1, found).mixed().any()
    for name, first, last in (("day", 0, 60), ("night", 60, 100)):
        part = found[name]
        assert part.indices.tolist() == list(range(first, last))
        # The same images are together, under the domain's own numbers without gaps.
        pairs = torch.stack([part.labels, joint.labels[first:last]], dim=1).unique(dim=0)
        assert len(pairs) == len(pairs[:, 0].unique()) == len(pairs[:, 1].unique())
        assert part.num_clusters == int(part.labels.max()) + 1


def test_a_union_without_any_cluster_is_refused() -> None:
    with pytest.raises(NothingClusteredError, match="No cluster in either domain at epoch 3"):
        UnionClusters(k1=4, min_samples=50, on_empty="skip")(
            grouped(20, 4), images(torch.arange(20) % 2), epoch=3
        )
