"""Every registered loss head: builds from the config, trains the encoder, survives the degenerate cases."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from head_world import build, configured, renumbered, rows_of, world, world_of

from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.loss_heads import LOSS_HEAD_REGISTRY, LossHead, build_loss_heads
from dnreid_plugins.modeling.loss_heads.base import parse_weight

# Heads that need more than features, the bank "own" and a matching of their own have tests of their own.
ELSEWHERE = {
    *(
        "CPML",
        "DynamicContrast",
        "FusedContrast",
        "GlareMask",
        "HybridNCE",
        "ImageText",
        "PrototypeClassifier",
    ),
    *("CentreTriplet", "HardTriplet", "IdentityClassifier", "WeightedTriplet"),
}
HEADS = sorted(set(LOSS_HEAD_REGISTRY.names()) - ELSEWHERE)
LOSSES = [name for name in HEADS if name != "CMA"]


def test_no_head_is_forgotten() -> None:
    assert len(LOSSES) >= 10 and ELSEWHERE < set(LOSS_HEAD_REGISTRY.names())


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_reaches_the_encoder(name: str) -> None:
    here = world([0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2])
    # The clusters of this world lie further apart than the default margin.
    loss = here.loss(build(name, **({"MARGIN": 9.0} if name == "TripletLoss" else {})))
    assert loss.ndim == 0 and torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, here.batch.features)
    assert bool(gradient.norm() > 0), f"{name} trains nothing"


DEGENERATE = {
    "one cluster each": ([0, 0], [0, 0]),
    "no night cluster": ([0, 0, 1, 1], [-1, -1]),
    "no day cluster": ([-1, -1], [0, 0, 1, 1]),
    "outliers in the batch": ([0, 0, -1], [0, -1, 0]),
    "more night clusters": ([0, 0], [0, 0, 1, 1, 2, 2]),
    "no night image in the batch": ([0, 0, 1, 1], []),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("case", sorted(DEGENERATE))
def test_degenerate_cases_stay_finite_and_connected(name: str, case: str) -> None:
    here = world(*DEGENERATE[case])
    loss = here.loss(build(name))
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, here.batch.features)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", LOSSES)
def test_renumbering_the_clusters_of_one_domain_changes_no_loss(name: str) -> None:
    labels = [0, 0, 1, 1, 2, 2, 3, 3]
    plain = world(labels, labels)
    moved = world_of(plain.epoch.day, renumbered(plain.epoch.night, [1, 2, 3, 0]))
    torch.testing.assert_close(moved.loss(build(name)), plain.loss(build(name)))


def test_cma_mixes_both_sides_once_and_adds_no_loss() -> None:
    here, head = world([0, 0, 1, 1], [0, 0, 1, 1]), build("CMA")
    before, parts = rows_of(here.parts()), here.parts(head)
    assert not head.has_loss
    matching = parts.matching("CMA")
    assert matching is not None and matching.day_to_night.tolist() == [0, 1]
    for d in Domain:
        expected = F.normalize(0.1 * before[d] + 0.9 * before[d.other], dim=1)
        torch.testing.assert_close(parts.memory.rows(d), expected)


def test_one_sided_cma_mixes_the_day_rows_only_and_leaves_their_length() -> None:
    here = world([0, 0, 1, 1], [0, 0, 1, 1])
    before, parts = rows_of(here.parts()), here.parts(build("CMA", ONE_SIDED=True, MOMENTUM=0.4))
    mixed = 0.4 * before[Domain.DAY] + 0.6 * before[Domain.NIGHT]
    torch.testing.assert_close(parts.memory.rows(Domain.DAY), mixed)
    assert torch.equal(parts.memory.rows(Domain.NIGHT), before[Domain.NIGHT])


def test_pgm_alternates_by_epoch() -> None:
    for number, reached in ((1, Domain.NIGHT), (2, Domain.DAY)):
        here = world([0, 0, 1, 1], [0, 0, 1, 1], number)
        (gradient,) = torch.autograd.grad(here.loss(build("PGM")), here.batch.features)
        for domain in Domain:
            norm = gradient[here.batch.domains == domain].norm()
            assert bool(norm > 0) == (domain == reached)


@pytest.mark.parametrize(
    ("weight", "expected"),
    [(((1, 0.5), (51, 0.3)), [0.5, 0.5, 0.3, 0.3]), (((51, 0.3),), [0.0, 0.0, 0.3, 0.3])],
)
def test_weights_are_piecewise_constant(weight: tuple, expected: list[float]) -> None:
    head = LossHead(weight=weight)
    assert [head.weight_at(epoch) for epoch in (1, 50, 51, 100)] == expected


@pytest.mark.parametrize(
    "weight", [(), ((0, 1.0),), ((2, 1.0), (1, 0.5)), ((1, -1.0),), ((1.5, 1.0),), (1, 2), "x"]
)
def test_bad_weights_are_refused(weight: object) -> None:
    with pytest.raises(ValueError, match=r"MODEL\.LOSSES\.X\.WEIGHT is .*; write"):
        parse_weight(weight, "MODEL.LOSSES.X.WEIGHT")  # type: ignore[arg-type]


@pytest.mark.parametrize("names", [(), ("ClusterNCE", "ClusterNCE"), ("Clusternce",), ("CrossEntropyLoss",)])
def test_bad_names_are_refused(names: tuple[str, ...]) -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = names
    with pytest.raises(ValueError, match=r"MODEL\.LOSSES\.NAME"):
        build_loss_heads(cfg)


@pytest.mark.parametrize(("head", "key"), [("DGM", "PROGRESS"), ("MAA", "FEATURE"), ("MMD", "FEATURE")])
def test_unknown_options_are_refused(head: str, key: str) -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = (head,)
    cfg.MODEL.LOSSES[head][key] = "else"
    with pytest.raises(ValueError, match=f"MODEL.LOSSES.{head}.{key}"):
        build_loss_heads(cfg)


@pytest.mark.parametrize("name", ["MAA", "MMD", "MarginMMD"])
def test_number_of_kernels_reaches_the_loss_and_is_checked(name: str) -> None:
    here = world([0, 0, 1, 1], [0, 0, 1, 1])
    values = [float(here.loss(configured(name, NUM_KERNELS=count)).detach()) for count in (1, 5)]
    assert values[0] != values[1]
    with pytest.raises(ValueError, match="NUM_KERNELS is 0"):
        configured(name, NUM_KERNELS=0)
