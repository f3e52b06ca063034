"""CLUSTER.EPS "auto": one radius for both domains, which reaches the epoch; the config takes it beside a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from grouped_rows import grouped, images, labelled

from dnreid_plugins.functional.neighbours.radius import RADII, jaccard_dbscan_auto
from dnreid_plugins.labels import DomainClusters, NothingClusteredError, UnionClusters
from dnreid_plugins.labels.build import describe
from dnreid_plugins.labels.quality import label_free_figures
from dnreid_plugins.runtime.config_files import ConfigError, merge_with_suggestions
from dnreid_plugins.runtime.sections import construct

DAY, NIGHT = grouped(120, 6, noise=0.1), grouped(90, 5, seed=1, noise=0.2)


def test_both_domains_have_the_radius_that_is_best_for_them_together() -> None:
    epoch = labelled(DomainClusters(k1=8, eps="auto"), DAY, NIGHT)
    found, radius = jaccard_dbscan_auto([DAY, NIGHT], k1=8)
    for part, labels in zip((epoch.day, epoch.night), found, strict=True):
        np.testing.assert_array_equal(part.labels.numpy(), labels)
    assert dict(epoch.figures) == {"day/radius": radius, "night/radius": radius}
    assert len({radius, *(jaccard_dbscan_auto([rows], k1=8)[1] for rows in (DAY, NIGHT))}) > 1
    known = describe(epoch, images(torch.tensor([0] * 120 + [1] * 90)))
    assert known["day/radius"] == radius


def test_a_fixed_radius_and_a_widened_one_are_told_too() -> None:
    epoch = labelled(DomainClusters(k1=8, eps=0.5), DAY, NIGHT)
    assert dict(epoch.figures) == {"day/radius": 0.5, "night/radius": 0.5}
    wide = labelled(DomainClusters(k1=8, eps=0.3), DAY, grouped(90, 0, seed=1))
    assert wide.figures["night/radius"] > 0.3 == wide.figures["day/radius"]


def test_noise_is_widened_beyond_the_radii_of_auto() -> None:
    epoch = labelled(DomainClusters(k1=8, eps="auto"), DAY, grouped(3, 0))
    assert epoch.night.num_clusters == 0 and epoch.figures["night/radius"] > RADII[-1]


def test_a_union_has_one_radius() -> None:
    found = UnionClusters(k1=8, eps="auto")(DAY, images(torch.arange(120) % 2), epoch=1)
    assert found["joint"].radius == jaccard_dbscan_auto([DAY], k1=8)[1] and found["day"].radius is None


def test_nothing_at_all_names_no_radius() -> None:
    with pytest.raises(NothingClusteredError, match="at epoch 3: lower CLUSTER.MIN_SAMPLES"):
        labelled(DomainClusters(k1=8, eps="auto"), grouped(3, 0), grouped(3, 0))


def test_figures_without_identities() -> None:
    epoch = labelled(DomainClusters(k1=8), DAY, NIGHT)
    first = label_free_figures(epoch, {})
    assert set(first) == {"day/silhouette", "night/silhouette", "matched"}
    assert first["day/silhouette"] > first["night/silhouette"]
    cosines = epoch.day.centroids @ epoch.night.centroids.T
    nearest = [int(row.argmax()) for row in cosines], [int(column.argmax()) for column in cosines.T]
    mutual = sum(nearest[1][night] == day for day, night in enumerate(nearest[0]))
    assert first["matched"] == pytest.approx(100 * 2 * mutual / sum(cosines.shape)) and mutual
    again = label_free_figures(epoch, {"day": epoch.day.labels, "night": epoch.night.labels[:3]})
    assert again["day/stability"] == 1.0 and "night/stability" not in again


@pytest.mark.parametrize("value", ["auto", 0.45, 1])
def test_the_command_line_and_a_file_take_the_word_and_a_number(value: object, tmp_path: Path) -> None:
    (tmp_path / "auto.yml").write_text(f"CLUSTER: {{EPS: {value}}}")
    (tmp_path / "word.yml").write_text("CLUSTER: {EPS: auto}")
    for cfg, merge in (
        (get_cfg(), lambda cfg: merge_with_suggestions(cfg, "", ["CLUSTER.EPS", str(value)])),
        (get_cfg(), lambda cfg: merge_with_suggestions(cfg, tmp_path / "auto.yml")),
        (get_cfg(), lambda cfg: cfg.merge_from_file(str(tmp_path / "auto.yml"))),
        (get_cfg(), lambda cfg: cfg.merge_from_list(["CLUSTER.EPS", value])),
        (get_cfg(), lambda cfg: cfg.merge_from_other_cfg(CfgNode({"CLUSTER": CfgNode({"EPS": value})}))),
    ):
        cfg.merge_from_file(str(tmp_path / "word.yml"))  # a number also stands over the word
        merge(cfg)
        assert cfg.CLUSTER.EPS == value and type(cfg.CLUSTER.EPS) is (str if value == "auto" else float)
        assert construct(DomainClusters, cfg).eps == value


@pytest.mark.parametrize("value", ["automatic", "Auto", "", "True"])
def test_no_other_word_is_taken(value: str) -> None:
    with pytest.raises(ConfigError, match=r"sets CLUSTER\.EPS to .*; it must be a number such as 0.6"):
        merge_with_suggestions(get_cfg(), "", ["CLUSTER.EPS", value])


@pytest.mark.parametrize("value", ["automatic", True, 0.0, 1.5, float("nan")])
def test_whoever_sets_it_the_source_refuses_what_it_cannot_use(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"CLUSTER\.EPS is .*; it must be above 0 and at most 1, or 'auto'\."
    ):
        DomainClusters(eps=value)  # type: ignore[arg-type]
