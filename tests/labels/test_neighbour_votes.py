"""Labels by vote across the domains and within one: against loops, and what becomes of the clusters."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from fastreid.config import get_cfg
from grouped_rows import grouped, images

from dnreid_plugins.functional.types import Clusters, Domain, Epoch, TrainImages
from dnreid_plugins.labels import MajoritySmooth, TransferByVote, build_labels
from dnreid_plugins.labels.base import make_clusters

NUM = {Domain.DAY: 23, Domain.NIGHT: 31}


def start(
    day: list[int] | None = None, night: list[int] | None = None
) -> tuple[Epoch, torch.Tensor, TrainImages]:
    """An epoch of random labels, outliers among them, whose images of both domains stand in turn."""
    generator = torch.Generator().manual_seed(3)
    total = sum(NUM.values())
    features = grouped(total, 6, noise=0.6)
    places = torch.randperm(total, generator=generator)
    indices = {
        Domain.DAY: places[: NUM[Domain.DAY]].sort().values,
        Domain.NIGHT: places[NUM[Domain.DAY] :].sort().values,
    }
    domains = torch.zeros(total, dtype=torch.int64)
    domains[indices[Domain.NIGHT]] = 1
    parts = {}
    for domain, given in ((Domain.DAY, day), (Domain.NIGHT, night)):
        drawn = (indices[domain] % 6 + int(domain)) % 6 - 1
        labels = drawn if given is None else torch.tensor(given)
        parts[domain] = make_clusters(labels, features[indices[domain]], indices[domain])
    return Epoch.of(parts[Domain.DAY], parts[Domain.NIGHT], 4, 9), features, images(domains)


def slow_vote(
    features: torch.Tensor, asked: torch.Tensor, labels: list[int], k: int, *, count: bool
) -> list[int]:
    """Image by image; a tie goes to the lower label."""
    answers = []
    for row in features:
        near = sorted(range(len(asked)), key=lambda j: (-float(row.double() @ asked[j].double()), j))[:k]
        votes: Counter[int] = Counter()
        for j in near:
            votes[labels[j]] += 1 if count else float(torch.exp(row.double() @ asked[j].double()))  # type: ignore[assignment]
        answers.append(min(votes, key=lambda label: (-votes[label], label)))
    return answers


def consistent(epoch: Epoch, domain: Domain) -> Clusters:
    """The clusters "shared" after their invariants were checked: same groups, no gaps, centroids of the voters."""
    shared, part = epoch.clusters["shared"], epoch[domain]
    labels = epoch.targets("shared", part.indices)
    pairs = {(a, b) for a, b in zip(labels.tolist(), part.labels.tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}), "another partition"
    assert all((a < 0) == (b < 0) for a, b in pairs)
    for clusters in (shared, part):
        assert torch.unique(clusters.labels[clusters.labels >= 0]).tolist() == list(
            range(clusters.num_clusters)
        )
    again = make_clusters(part.labels, part.features, part.indices)
    assert torch.equal(part.centroids, again.centroids)
    return shared


@pytest.mark.parametrize("domain", list(Domain))
@pytest.mark.parametrize("weights", ["softmax", "count"])
@pytest.mark.parametrize("k", [1, 7, 99])
def test_labels_come_from_the_other_domain(domain: Domain, weights: str, k: int) -> None:
    epoch, features, known = start()
    refiner = TransferByVote(relabels=domain.word, neighbours=k, weights=weights)  # type: ignore[arg-type]
    after = refiner(epoch, features, known)
    part, voters = epoch[domain], epoch[domain.other]
    expected = slow_vote(part.features, voters.features, voters.labels.tolist(), k, count=weights == "count")
    shared = consistent(after, domain)
    assert after.targets("shared", part.indices).tolist() == expected
    assert after.targets("shared", voters.indices).tolist() == voters.labels.tolist()
    assert torch.equal(shared.centroids, voters.centroids) and torch.equal(shared.features, features)
    assert after[domain.other] is voters


@pytest.mark.parametrize("domain", list(Domain))
def test_smoothing_takes_the_majority(domain: Domain) -> None:
    epoch, features, known = start()
    after = MajoritySmooth(smooths=domain.word, neighbours=5)(epoch, features, known)  # type: ignore[arg-type]
    part = epoch[domain]
    smooth = slow_vote(part.features, part.features, part.labels.tolist(), 5, count=True)
    names = {label: i for i, label in enumerate(sorted(set(smooth) - {-1}))} | {-1: -1}
    assert after[domain].labels.tolist() == [names[label] for label in smooth] != part.labels.tolist()
    assert after[domain.other] is epoch[domain.other] and "shared" not in after.clusters


@pytest.mark.parametrize("smoothed", list(Domain))
def test_smoothing_after_a_transfer_keeps_the_shared_clusters_in_step(smoothed: Domain) -> None:
    epoch, features, known = start()
    moved = TransferByVote(neighbours=3)(epoch, features, known)
    after = MajoritySmooth(smooths=smoothed.word, neighbours=9)(moved, features, known)  # type: ignore[arg-type]
    part = moved[smoothed]
    before = moved.targets("shared", part.indices)
    smooth = slow_vote(part.features, part.features, before.tolist(), 9, count=True)
    shared = consistent(after, smoothed)
    everyone = moved.clusters["shared"].labels.clone()
    everyone[part.indices] = torch.tensor(smooth)
    kept = sorted(set(everyone.tolist()) - {-1})
    assert torch.equal(shared.centroids, moved.clusters["shared"].centroids[kept])
    assert shared.labels.tolist() == [kept.index(label) if label >= 0 else -1 for label in everyone.tolist()]


def directions(*degrees: float) -> torch.Tensor:
    angle = torch.tensor(degrees).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_numbers_that_a_domain_lacks_or_loses() -> None:
    """Night clusters at 0, 100 and 120 degrees; no day image is near the second, whose only image stands alone."""
    day, night = directions(1, 2, 3, 121, 122, 123), directions(0, 1, 2, 100, 119, 120, 121)
    features = torch.cat([day, night])
    parts = (
        make_clusters(torch.tensor([0, 0, 1, 1, 2, 2]), day, torch.arange(6)),
        make_clusters(torch.tensor([0, 0, 0, 1, 2, 2, 2]), night, torch.arange(6, 13)),
    )
    known = images(torch.tensor([0] * 6 + [1] * 7))
    moved = TransferByVote(neighbours=3)(Epoch.of(*parts, 1, 9), features, known)
    assert moved.targets("shared", torch.arange(6)).tolist() == [0, 0, 0, 2, 2, 2]
    assert moved.day.labels.tolist() == [0, 0, 0, 1, 1, 1]
    day_smooth = MajoritySmooth(neighbours=3)(moved, features, known)
    assert day_smooth.targets("shared", torch.arange(13)).tolist() == [0, 0, 0, 2, 2, 2, 0, 0, 0, 1, 2, 2, 2]
    night_smooth = MajoritySmooth(smooths="night", neighbours=3)(moved, features, known)
    assert night_smooth.targets("shared", torch.arange(13)).tolist() == [
        0,
        0,
        0,
        1,
        1,
        1,
        0,
        0,
        0,
        1,
        1,
        1,
        1,
    ]
    assert night_smooth.night.labels.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert torch.equal(night_smooth.clusters["shared"].centroids, moved.night.centroids[[0, 2]])


def test_without_a_voting_cluster_labels_stay(caplog: pytest.LogCaptureFixture) -> None:
    epoch, features, known = start(night=[-1] * NUM[Domain.NIGHT])
    after = TransferByVote()(epoch, features, known)
    assert after.day is epoch.day and after.clusters["shared"].num_clusters == 0
    assert set(after.clusters["shared"].labels.tolist()) == {-1}
    assert "No night cluster, so the day images keep their labels" in caplog.text
    smooth = MajoritySmooth(neighbours=1)(after, features, known)
    assert torch.equal(smooth.day.labels, epoch.day.labels)


def test_outliers_that_win_everywhere_leave_the_domain_without_a_cluster() -> None:
    epoch, features, known = start(night=[0, 0] + [-1] * (NUM[Domain.NIGHT] - 2))
    after = TransferByVote(neighbours=31, weights="count")(epoch, features, known)
    assert after.day.num_clusters == 0 and after.clusters["shared"].num_clusters == 1
    assert consistent(after, Domain.DAY).labels.tolist().count(0) == 2


def test_both_work_from_their_epoch_on_and_take_their_keys() -> None:
    cfg = get_cfg()
    cfg.LABELS.REFINERS = ("TransferByVote", "MajoritySmooth")
    cfg.LABELS.TRANSFERBYVOTE.update({"START": 6, "RELABELS": "night", "NEIGHBOURS": 8, "WEIGHTS": "count"})
    cfg.LABELS.MAJORITYSMOOTH.update({"START": 7, "SMOOTHS": "night", "NEIGHBOURS": 5})
    labels = build_labels(cfg)
    transfer, smooth = labels.refiners
    assert isinstance(transfer, TransferByVote) and isinstance(smooth, MajoritySmooth)
    assert (transfer.start, transfer.domain, transfer.neighbours, transfer.weights) == (
        6,
        Domain.NIGHT,
        8,
        "count",
    )
    assert (smooth.start, smooth.domain, smooth.neighbours) == (7, Domain.NIGHT, 5)
    assert ["shared" in labels.makes(number) for number in (5, 6, 99)] == [False, True, True]
    for section, key, value in (("TRANSFERBYVOTE", "RELABELS", "dawn"), ("MAJORITYSMOOTH", "NEIGHBOURS", 0)):
        broken = cfg.clone()
        broken.LABELS[section][key] = value
        with pytest.raises(ValueError, match=f"LABELS.{section}.{key} is"):
            build_labels(broken)
