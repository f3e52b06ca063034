"""The refiner that relabels by dense prototypes: numbers, centroids, outliers, clusters that end, as released."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode, get_cfg
from grouped_rows import images
from run_helpers import cut_and_resumed, same, train, weights

from dnreid_plugins.functional.neighbours.density import density_relabel
from dnreid_plugins.functional.types import Clusters, Domain, Epoch
from dnreid_plugins.labels import build_labels
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.labels.density import DensityRelabel

#: Cluster 1 lies between the two others, whose dense parts are nearer to each of its images than its own middle.
ANGLES = torch.tensor([0.0, 0.02, 0.04, 1.1, 1.12, 1.14, 0.1, 1.0, 2.0])
LABELS = torch.tensor([0, 0, 0, 2, 2, 2, 1, 1, -1])


def epoch(first: int = 0) -> Epoch:
    features = torch.stack([ANGLES.cos(), ANGLES.sin()], dim=1)
    clusters = [make_clusters(LABELS, features, start + torch.arange(9)) for start in (first, first + 9)]
    return Epoch.of(clusters[0], clusters[1], 1, 2)


def refined(refiner: DensityRelabel) -> tuple[Clusters, Clusters, Epoch]:
    before = epoch()
    after = refiner(before, torch.zeros(18, 2), images(torch.tensor([0] * 9 + [1] * 9)))
    return after.day, after.night, before


def test_labels_are_numbered_anew_and_centroids_are_those_of_the_new_labels() -> None:
    day, night, before = refined(DensityRelabel(top=3))
    assert before.day.num_clusters == 3 and torch.equal(before.day.labels, LABELS)
    for part in (day, night):
        assert part.labels.tolist() == [0, 0, 0, 1, 1, 1, 0, 1, -1]
        assert part.num_clusters == 2
        own = torch.stack([part.features[part.labels == c].mean(dim=0) for c in (0, 1)])
        torch.testing.assert_close(part.centroids, F.normalize(own, dim=1))
    assert night.indices.tolist() == list(range(9, 18))


def test_number_of_images_and_threshold_are_those_of_the_refiner() -> None:
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(60, 4, generator=generator), dim=1)
    part = make_clusters(torch.arange(60) % 3, features, torch.arange(60))
    found = {}
    for top, threshold in ((3, 0.8), (3, 0.0), (9, 0.8)):
        one = DensityRelabel(top=top, threshold=threshold)
        day = one(Epoch.of(part, part, 1, 2), features, images(torch.zeros(60))).day
        assert torch.equal(day.labels, density_relabel(features, part.labels, top, threshold))
        found[top, threshold] = day.labels
    assert not torch.equal(found[3, 0.8], found[3, 0.0]) and not torch.equal(found[3, 0.8], found[9, 0.8])


def test_as_released_the_centroids_are_those_of_the_old_labels() -> None:
    plain, released = refined(DensityRelabel(top=3))[0], refined(DensityRelabel(top=3, as_released=True))
    assert torch.equal(released[0].labels, plain.labels)
    assert torch.equal(released[0].centroids, released[2].day.centroids[[0, 2]])
    assert not torch.allclose(released[0].centroids, plain.centroids)


def test_a_domain_without_clusters_stays_so() -> None:
    empty = make_clusters(torch.full((9,), -1), torch.eye(9), torch.arange(9))
    after = DensityRelabel()(
        Epoch.of(empty, epoch().night, 1, 2), torch.zeros(18, 2), images(torch.zeros(18))
    )
    assert after.day.num_clusters == 0 and after.day.labels.tolist() == [-1] * 9


def test_the_config_s_keys_reach_it() -> None:
    cfg = get_cfg()
    cfg.LABELS.REFINERS = ("DensityRelabel",)
    section = cfg.LABELS.DENSITYRELABEL
    assert (section.START, section.TOP, section.THRESHOLD, section.AS_RELEASED) == (1, 20, 0.5, False)
    section.START, section.TOP, section.THRESHOLD, section.AS_RELEASED = 4, 7, 0.2, True
    (one,) = build_labels(cfg).refiners
    assert isinstance(one, DensityRelabel)
    assert (one.start, one.top, one.threshold, one.as_released) == (4, 7, 0.2, True)
    section.TOP = 0
    with pytest.raises(ValueError, match=r"LABELS\.DENSITYRELABEL\.TOP is 0"):
        build_labels(cfg)


@pytest.mark.parametrize("as_released", [False, True])
def test_a_run_relabels_from_its_epoch_on_and_resumes(tiny_cfg: CfgNode, as_released: bool) -> None:
    tiny_cfg.LABELS.REFINERS = ("DensityRelabel",)
    tiny_cfg.LABELS.DENSITYRELABEL.START = 2
    tiny_cfg.LABELS.DENSITYRELABEL.TOP = 1
    tiny_cfg.LABELS.DENSITYRELABEL.THRESHOLD = 0.9
    tiny_cfg.CLUSTER.EPS = 0.3  # more clusters than vehicles, so that some images lie nearer to another one
    tiny_cfg.LABELS.DENSITYRELABEL.AS_RELEASED = as_released
    whole = train(tiny_cfg)
    folder = tiny_cfg.OUTPUT_DIR
    tiny_cfg.OUTPUT_DIR += "-cut"
    assert same(weights(cut_and_resumed(tiny_cfg, 6)), weights(whole))

    # Until the second epoch's labels a run without it is the same run.
    tiny_cfg.LABELS.REFINERS, tiny_cfg.OUTPUT_DIR = (), folder + "-plain"
    plain, found = train(tiny_cfg).parts.epoch, whole.parts.epoch
    assert plain is not None and found is not None
    expected = DensityRelabel(top=1, threshold=0.9, as_released=as_released)(
        plain, plain.day.features, images(torch.zeros(72))
    )
    for name in ("day", "night"):
        assert torch.equal(found.clusters[name].labels, expected.clusters[name].labels)
        assert torch.equal(found.clusters[name].centroids, expected.clusters[name].centroids)
    assert any(not torch.equal(found[d].labels, plain[d].labels) for d in Domain)
