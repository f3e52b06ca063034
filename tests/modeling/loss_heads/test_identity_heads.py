"""Classifier and triplet losses over the joint clusters, such as identities, of both domains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from head_world import D, World, build, configured, part, renumbered, world_of

from dnreid_plugins.functional.losses.triplets import centre_triplet, hard_triplet, weighted_triplet
from dnreid_plugins.labels.base import make_clusters
from dnreid_plugins.modeling.loss_heads import IdentityClassifier

TRIPLETS = ("CentreTriplet", "HardTriplet", "WeightedTriplet")
HEADS = ("IdentityClassifier", *TRIPLETS)
DAY, NIGHT, JOINT = [0, 0, 1, 1, 2, -1], [1, 1, 2, 0, -1], [1, 1, 2, 2, 0, -1, 1, 1, 2, 0, -1]


def joint_world(day: list[int], night: list[int], joint: list[int], number: int = 1) -> World:
    """Night clusters are called otherwise than day clusters, so that only the joint labels are right for both."""
    nights = part(night, len(day))
    if nights.num_clusters > 0:
        nights = renumbered(nights, [*range(1, nights.num_clusters), 0])
    here = world_of(part(day, 0), nights, number)
    features = torch.cat([here.epoch.day.features, here.epoch.night.features])
    together = make_clusters(torch.tensor(joint), features, torch.arange(len(joint)))
    epoch = replace(here.epoch, clusters={**here.epoch.clusters, "joint": together})
    return World(epoch, here.batch)


FUNCTIONS: list[tuple[str, dict[str, Any], Any]] = [
    ("WeightedTriplet", {}, weighted_triplet),
    ("WeightedTriplet", {"SQUARED": True}, lambda x, y: weighted_triplet(x, y, squared=True)),
    ("WeightedTriplet", {"AS_RELEASED": True}, lambda x, y: weighted_triplet(x, y, as_released=True)),
    ("HardTriplet", {"MARGIN": 9.0}, lambda x, y: hard_triplet(x, y, margin=9.0)),
    ("CentreTriplet", {"MARGIN": 5.0}, lambda x, y: centre_triplet(x, y, margin=5.0)),
    ("CentreTriplet", {"MARGIN": 9.0, "STRIDE": 3}, lambda x, y: centre_triplet(x, y, margin=9.0, stride=3)),
]


@pytest.mark.parametrize(("name", "options", "function"), FUNCTIONS)
def test_a_triplet_head_is_its_function_of_the_feature_before_the_neck(
    name: str, options: dict[str, Any], function: Any
) -> None:
    here = joint_world(DAY, NIGHT, JOINT)
    # The image of one line of a batch is any image of the list.
    order = torch.tensor([7, 0, 3, 9, 10, 4, 1, 6])
    here = World(here.epoch, here.batch.where(order))
    expected = function(here.batch.pooled, torch.tensor(JOINT)[order])
    assert expected.item() > 0
    torch.testing.assert_close(here.loss(build(name, **options)), expected)


def test_the_hardest_triplet_within_a_domain() -> None:
    here = joint_world(DAY, NIGHT, JOINT)
    domains = here.batch.domains
    expected = hard_triplet(here.batch.pooled, torch.tensor(JOINT), margin=9.0, domains=domains)
    loss = here.loss(build("HardTriplet", MARGIN=9.0, WITHIN="domain"))
    torch.testing.assert_close(loss, expected)
    assert loss.item() != here.loss(build("HardTriplet", MARGIN=9.0)).item()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_classifier_is_a_cross_entropy_of_the_neck_feature(smoothing: float) -> None:
    here, head = joint_world(DAY, NIGHT, JOINT), build("IdentityClassifier", SMOOTHING=smoothing)
    parts = here.parts(head)
    assert head.layer.shape == (3, D) and 0 < head.layer.std() < 0.01
    head.layer.data *= 1000  # as drawn, every class is about as likely as any other
    logits = here.batch.features @ head.layer.T
    expected = F.cross_entropy(logits, torch.tensor(JOINT), ignore_index=-1, label_smoothing=smoothing)
    torch.testing.assert_close(head(here.batch, parts), expected)
    assert torch.autograd.grad(head(here.batch, parts), head.layer)[0].norm() > 0


def test_the_classifier_keeps_its_layer_and_refuses_other_classes() -> None:
    head = build("IdentityClassifier")
    joint_world(DAY, NIGHT, JOINT).parts(head)
    layer = head.layer.clone()
    joint_world(DAY, NIGHT, JOINT, number=2).parts(head)
    assert torch.equal(head.layer, layer)
    with pytest.raises(
        ValueError, match="has learned 3 classes, epoch 3 has 2 joint clusters; choose labels"
    ):
        joint_world([0, 0], [0, 0], [0, 0, 1, 1], number=3).parts(head)
    head.forget()
    joint_world([0, 0], [0, 0], [0, 0, 1, 1], number=1).parts(head)
    assert head.layer.shape == (2, D)


def test_the_layer_follows_the_seed() -> None:
    layers = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        head = IdentityClassifier()
        joint_world(DAY, NIGHT, JOINT).parts(head)
        layers.append(head.layer.detach())
    assert torch.equal(layers[0], layers[1]) and not torch.equal(layers[0], layers[2])


@pytest.mark.parametrize("name", HEADS)
def test_gradient_reaches_the_encoder(name: str) -> None:
    here = joint_world(DAY, NIGHT, JOINT)
    loss = here.loss(build(name, **({"MARGIN": 9.0} if name == "HardTriplet" else {})))
    (gradient,) = torch.autograd.grad(loss, here.batch.features)
    assert bool((gradient[torch.tensor(JOINT) >= 0].norm(dim=1) > 0).all())
    assert not gradient[torch.tensor(JOINT) < 0].any()


DEGENERATE = {
    "one identity": ([0, 0], [0, 0], [0, 0, 0, 0]),
    "nobody known": ([-1, -1], [-1], [-1, -1, -1]),
    "day only": ([0, 0, 1], [-1], [0, 0, 1, -1]),
    "no night image": ([0, 0, 1, 1], [], [0, 0, 1, 1]),
    "more night identities": ([0, 0], [0, 1, 2], [0, 0, 0, 1, 2]),
}


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("case", sorted(DEGENERATE))
def test_degenerate_cases_stay_finite_and_connected(name: str, case: str) -> None:
    here = joint_world(*DEGENERATE[case])
    loss = here.loss(build(name))
    assert torch.isfinite(loss)
    (gradient,) = torch.autograd.grad(loss, here.batch.features)
    assert bool(torch.isfinite(gradient).all())


@pytest.mark.parametrize("name", TRIPLETS)
def test_it_matches_the_clusters_of_one_identity(name: str) -> None:
    here = joint_world([0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1, 1, 1, 0, 0])
    matching = here.parts(build(name)).matching(name)
    # Night clusters of `joint_world` are renumbered by one: its first two images are cluster 1.
    assert matching is not None and matching.day_to_night.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("IdentityClassifier", "SMOOTHING", 1.5),
        ("HardTriplet", "MARGIN", -1.0),
        ("HardTriplet", "WITHIN", "camera"),
        ("CentreTriplet", "STRIDE", -1),
        ("WeightedTriplet", "SQUARED", 2),
    ],
)
def test_wrong_values_are_refused(name: str, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"MODEL.LOSSES.{name.upper()}.{option} is {value!r}; it must be"):
        configured(name, **{option: value})
