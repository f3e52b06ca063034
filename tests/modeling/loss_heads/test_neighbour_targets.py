"""The head whose targets come from neighbours, against a loop over all images, in either direction of an epoch."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from head_world import World, build, configured, renumbered, turned_world, world, world_of

from dnreid_plugins.functional.losses.contrast import cluster_nce
from dnreid_plugins.functional.types import Clusters, Domain
from dnreid_plugins.modeling.parts import Parts

K = 4


def overlap(own: torch.Tensor, clusters: Clusters, k: int) -> torch.Tensor:
    """``s`` of one image by its definition; all 0 without a clustered neighbour."""
    order = torch.argsort(-(clusters.features @ own), stable=True)[:k]
    counts = Counter(label for label in clusters.labels[order].tolist() if label >= 0)
    s = torch.zeros(clusters.num_clusters)
    for c, n in counts.items():
        s[c] = n / (len(order) - n + int((clusters.labels == c).sum()))
    return s / s.sum() if counts else s


def slow_term(
    here: World, parts: Parts, domain: Domain, where: Domain, k: int = K, keep: float = 0.7
) -> torch.Tensor:
    """Mean of ``w`` times soft cross-entropy of one domain's images against the clusters of ``where``."""
    part, clusters = here.epoch[domain], here.epoch[where]
    matching = parts.matching("NeighbourTargets")
    assert matching is not None
    unit = here.batch.of(domain).unit
    terms = []
    for i, label in enumerate(part.labels.tolist()):
        y = label if where == domain or label < 0 else int(matching.partner(domain)[0][label])
        if y < 0:
            continue
        s = overlap(part.features[i], clusters, k)
        target = (1 - keep) * s
        target[y] += keep
        log_p = torch.log_softmax(unit[i] @ parts.memory.rows(where).T / 0.05, dim=0)
        terms.append(math.exp(-10 * (1 - float(s[y])) ** 2) * -(target * log_p).sum())
    return sum(terms, unit.sum() * 0) / max(len(terms), 1)


def slow(here: World, parts: Parts, directions: list[Domain], cross: float) -> torch.Tensor:
    own = [slow_term(here, parts, domain, domain) for domain in Domain]
    return sum(own, torch.zeros(())) + cross * sum(
        (slow_term(here, parts, domain, domain.other) for domain in directions), torch.zeros(())
    )


@pytest.mark.parametrize(
    ("number", "alternate", "directions"),
    [(1, True, [Domain.NIGHT]), (2, True, [Domain.DAY]), (1, False, list(Domain)), (2, False, list(Domain))],
)
@pytest.mark.parametrize("cross", [3.0, 0.5])
def test_it_equals_the_loop(number: int, alternate: bool, directions: list[Domain], cross: float) -> None:
    here = turned_world(number)
    head = build("NeighbourTargets", NEIGHBOURS=K, ALTERNATE=alternate, CROSS_WEIGHT=cross)
    parts = here.parts(head)
    loss, want = head(here.batch, parts), slow(here, parts, directions, cross)
    torch.testing.assert_close(loss, want)
    got, expected = (
        torch.autograd.grad(one, here.batch.features, retain_graph=True)[0] for one in (loss, want)
    )
    torch.testing.assert_close(got, expected)
    assert all(bool(got[here.batch.domains == domain].norm() > 0) for domain in Domain)


def test_a_hard_target_of_weight_1_is_the_hard_contrast() -> None:
    here = turned_world()
    head = build("NeighbourTargets", KEEP=1.0, SHARPNESS=0.0, CROSS_WEIGHT=0.0)
    parts = here.parts(head)
    hard = sum(
        cluster_nce(here.batch.of(d).unit, here.batch.of(d).targets, parts.memory.rows(d)) for d in Domain
    )
    torch.testing.assert_close(head(here.batch, parts), hard)


def test_a_batch_in_any_order_with_several_views_finds_its_targets() -> None:
    here = turned_world()
    head = build("NeighbourTargets", NEIGHBOURS=K)
    parts = here.parts(head)
    order = torch.randperm(len(here.batch.targets), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(head(here.batch.where(order), parts), head(here.batch, parts))
    twice = here.batch.where(torch.cat([order, order]))
    torch.testing.assert_close(head(twice, parts), head(here.batch, parts))


def test_images_of_the_canonical_list_may_stand_anywhere() -> None:
    """Day images after night images, as some data sets list them."""
    plain = turned_world()
    day, night = plain.epoch.day, plain.epoch.night
    moved_day = Clusters(day.labels, day.features, day.centroids, day.indices + len(night.labels))
    moved_night = Clusters(night.labels, night.features, night.centroids, night.indices - len(day.labels))
    moved = world_of(moved_day, moved_night)
    losses = [here.loss(build("NeighbourTargets", NEIGHBOURS=K)) for here in (plain, moved)]
    torch.testing.assert_close(losses[0], losses[1])


def test_an_image_among_strangers_weighs_nothing() -> None:
    """Every night image is an outlier: the cross term has no label, the own night term no cluster."""
    here = world([0, 0, 1, 1], [-1, -1])
    head = build("NeighbourTargets", NEIGHBOURS=K, ALTERNATE=False)
    parts = here.parts(head)
    for targets in ((Domain.DAY, Domain.NIGHT), (Domain.NIGHT, Domain.NIGHT), (Domain.NIGHT, Domain.DAY)):
        assert not head.targets[targets].weight.any()  # type: ignore[index, operator, union-attr]
    (gradient,) = torch.autograd.grad(head(here.batch, parts), here.batch.features)
    assert bool(gradient[:4].norm() > 0) and not gradient[4:].any()


def test_renumbering_and_figures() -> None:
    plain = turned_world()
    moved = world_of(plain.epoch.day, renumbered(plain.epoch.night, [3, 1, 0, 2]))
    losses, figures = [], []
    for here in (plain, moved):
        head = build("NeighbourTargets", NEIGHBOURS=K)
        parts = here.parts()
        parts.losses["NeighbourTargets"] = head
        figures.append(parts.begin_epoch(here.epoch)["NeighbourTargets"])
        losses.append(head(here.batch, parts))
    torch.testing.assert_close(losses[0], losses[1])
    assert figures[0] == pytest.approx(figures[1])
    assert set(figures[0]) == {"day/own_weight", "night/own_weight", "night/cross_weight"}
    assert all(0 < value <= 1 for value in figures[0].values())


def test_the_matching_has_the_rounds_of_the_config() -> None:
    here = world([0, 0, 1, 1, 2, 2, 3, 3], [0, 0])
    covered = []
    for rounds in (1, 3, 0):
        parts = here.parts(build("NeighbourTargets", MAX_ROUNDS=rounds))
        matching = parts.matching("NeighbourTargets")
        assert matching is not None
        covered.append(int((matching.day_to_night >= 0).sum()))
    assert covered == [1, 3, 4]


@pytest.mark.parametrize(
    ("key", "value"),
    [("NEIGHBOURS", 0), ("KEEP", 1.1), ("SHARPNESS", -1.0), ("CROSS_WEIGHT", -1.0), ("TEMPERATURE", 0.0)],
)
def test_wrong_values_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"MODEL.LOSSES.NEIGHBOURTARGETS.{key} is"):
        configured("NeighbourTargets", **{key: value})
