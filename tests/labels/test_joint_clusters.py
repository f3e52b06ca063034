"""Clusters of both domains together: plain and balanced, from features and from codes, in their epochs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from grouped_rows import grouped, images

from dnreid_plugins.engine.preflight.parts import _unmade_clusters
from dnreid_plugins.functional.grouping import domain_balanced_means
from dnreid_plugins.functional.neighbours.clustering import jaccard_dbscan
from dnreid_plugins.functional.neighbours.codes import softmax_codes
from dnreid_plugins.functional.types import Domain, Epoch
from dnreid_plugins.labels import DomainClusters, JointClusters, Labels, build_labels
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.modeling.loss_heads import LossHead
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.parts import Parts

SEARCH: dict[str, Any] = {"k1": 14, "k2": 12, "eps": 0.6}


def two_domains(gap: float = 0.0, share: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """120 rows in six groups; every ``share``-th image is a night image, moved by ``gap``."""
    domains = (torch.arange(120) // 6 % share == 0).long()
    rows = grouped(120, 6) + gap * domains[:, None] * F.normalize(torch.ones(16), dim=0)
    return F.normalize(rows, dim=1), domains


def labelled(joint: JointClusters, gap: float = 0.0, number: int = 1, share: int = 4) -> Epoch:
    features, domains = two_domains(gap, share)
    return Labels(DomainClusters(k1=8), [joint])(features, images(domains), number=number, last=9)


def test_row_of_two_day_images_and_one_night_image() -> None:
    rows, labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), torch.zeros(3, dtype=torch.int64)
    balanced = domain_balanced_means(rows, labels, torch.tensor([0, 0, 1]))
    torch.testing.assert_close(balanced, torch.tensor([[0.70711, 0.70711]]), atol=1e-5, rtol=0)
    plain = make_clusters(labels, rows, torch.arange(3)).centroids
    torch.testing.assert_close(plain, torch.tensor([[0.89443, 0.44721]]), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("num", "clusters"), [(0, 1), (1, 1), (9, 4), (50, 7)])
def test_balanced_means_equal_the_loop(num: int, clusters: int) -> None:
    generator = torch.Generator().manual_seed(num)
    rows = torch.randn(num, 5, generator=generator)
    labels = torch.randint(-1, clusters, (num,), generator=generator)
    domains = torch.randint(2, (num,), generator=generator)
    found = domain_balanced_means(rows, labels, domains)
    assert found.shape == (int(labels.max()) + 1 if num else 0, 5)
    for c, row in enumerate(found):
        means = [rows[(labels == c) & (domains == d)] for d in (0, 1)]
        held = [part.mean(dim=0) for part in means if len(part)]
        expected = F.normalize(sum(held), dim=0) if held else torch.zeros(5)  # type: ignore[arg-type]
        torch.testing.assert_close(row, expected)


@pytest.mark.parametrize("balanced", [False, True])
def test_joint_clusters_are_those_of_all_images(balanced: bool) -> None:
    features, domains = two_domains(gap=0.4)
    epoch = labelled(JointClusters(**SEARCH, balanced=balanced), gap=0.4)
    joint = epoch.clusters["joint"]
    expected = jaccard_dbscan(features, **SEARCH, domains=domains if balanced else None)
    assert joint.labels.tolist() == expected.tolist() and joint.indices.tolist() == list(range(120))
    assert joint.num_clusters >= 6 and torch.equal(joint.features, features)
    rows = (
        domain_balanced_means(features, joint.labels, domains)
        if balanced
        else make_clusters(joint.labels, features, joint.indices).centroids
    )
    assert torch.equal(joint.centroids, rows)
    for name, part in Labels(DomainClusters(k1=8))(
        features, images(domains), number=1, last=9
    ).clusters.items():
        assert torch.equal(epoch.clusters[name].labels, part.labels), "the domain's own clusters changed"


def test_balanced_and_plain_differ() -> None:
    plain, balanced = (labelled(JointClusters(**SEARCH, balanced=b), gap=0.4) for b in (False, True))
    assert not torch.equal(plain.clusters["joint"].labels, balanced.clusters["joint"].labels)


@pytest.mark.parametrize("codes", ["none", "softmax"])
def test_images_of_one_domain_give_that_domains_clusters(codes: str) -> None:
    """Bit for bit: labels, rows and order."""
    features = grouped(80, 5)
    known = images(torch.zeros(80, dtype=torch.int64))
    source = DomainClusters(**SEARCH)
    plain = Labels(source)(features, known, number=1, last=9)
    joint = Labels(source, [JointClusters(**SEARCH, codes=codes)])(
        features, known, number=1, last=9
    ).clusters["joint"]
    if codes == "none":
        assert torch.equal(joint.labels, plain.day.labels)
        assert torch.equal(joint.centroids, plain.day.centroids)
    assert torch.equal(joint.features, features), "the rows of codes are no rows for the encoder"
    assert joint.centroids.shape[1] == features.shape[1]


def test_codes_are_clustered_with_their_temperature() -> None:
    features, domains = two_domains(gap=0.4)
    plain = Labels(DomainClusters(k1=8))(features, images(domains), number=1, last=9)
    for temperature in (0.05, 2.0):
        epoch = labelled(JointClusters(**SEARCH, codes="softmax", temperature=temperature), gap=0.4)
        codes = softmax_codes(features, [plain.day.centroids, plain.night.centroids], temperature=temperature)
        expected = jaccard_dbscan(codes, **SEARCH)
        assert epoch.clusters["joint"].labels.tolist() == expected.tolist()


def test_mixed_clusters_hold_images_of_both_domains() -> None:
    epoch = labelled(JointClusters(**SEARCH), gap=0.4)
    joint, domains = epoch.clusters["joint"], two_domains(0.4)[1]
    expected = [len(set(domains[joint.labels == c].tolist())) == 2 for c in range(joint.num_clusters)]
    assert epoch.mixed("joint").tolist() == expected
    for domain in Domain:
        assert not epoch.mixed(domain.word).any()
    far = labelled(JointClusters(**SEARCH), gap=20.0)
    assert far.clusters["joint"].num_clusters > 1 and not far.mixed("joint").any()


def test_it_works_from_start_to_last_and_says_so() -> None:
    joint = JointClusters(**SEARCH, start=2, last=3)
    labels = Labels(DomainClusters(k1=8), [joint])
    for number in (1, 2, 3, 4):
        made = "joint" in labelled(joint, number=number).clusters
        assert made == (number in (2, 3)) == ("joint" in labels.makes(number))
    assert Labels(DomainClusters(), [JointClusters(start=2)]).makes(99) == {"day", "night", "joint"}


def test_nothing_joint_leaves_no_row_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    epoch = labelled(JointClusters(k1=8, min_samples=100))
    assert epoch.clusters["joint"].num_clusters == 0 and epoch.clusters["joint"].centroids.shape == (0, 16)
    assert epoch.mixed("joint").shape == (0,)
    assert "None of 120 images is in a joint cluster (eps 0.60)" in caplog.text


def test_every_key_of_the_config_arrives() -> None:
    cfg = get_cfg()
    cfg.LABELS.REFINERS = ("JointClusters",)
    section, changed = cfg.LABELS.JOINTCLUSTERS, {
        "START": 2, "LAST": 4, "K1": 16, "K2": 12, "EPS": 0.5, "MIN_SAMPLES": 3, "BALANCED": True,
        "CODES": "softmax", "TEMPERATURE": 0.1,
    }  # fmt: skip
    assert set(section) == set(changed)
    section.update(changed)
    (joint,) = build_labels(cfg).refiners
    assert {key: getattr(joint, key.lower()) for key in changed} == changed
    for key, value in (("EPS", 0.0), ("CODES", "hard"), ("TEMPERATURE", 0.0), ("LAST", -1)):
        broken = cfg.clone()
        broken.LABELS.JOINTCLUSTERS[key] = value
        with pytest.raises(ValueError, match=f"LABELS.JOINTCLUSTERS.{key} is"):
            build_labels(broken)


@pytest.mark.parametrize(
    ("start", "last", "weight", "said"),
    [
        (1, 0, ((1, 1.0),), None),
        (3, 0, ((3, 1.0),), None),
        (3, 0, ((2, 1.0),), "in epoch 2"),
        (1, 5, ((1, 1.0), (6, 0.0)), None),
        (1, 5, ((1, 1.0),), "in epoch 6"),
    ],
)
def test_a_head_that_reads_them_is_checked_in_every_epoch(
    start: int, last: int, weight: Any, said: str | None
) -> None:
    class ReadsJoint(LossHead):
        reads = ("joint",)

    parts = Parts(memory=ClusterMemory(), losses={"ReadsJoint": ReadsJoint(weight=weight)})
    text = _unmade_clusters(parts, Labels(DomainClusters(), [JointClusters(start=start, last=last)]), 10)
    assert (text is None) == (said is None)
    assert text is None or f"ReadsJoint reads the clusters 'joint' {said}, but the labels have" in text
