"""The loss heads of Bridging Day and Night against loops, and what each of them trains."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from head_world import World, part, unclustered, world_of
from torch import Tensor

from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.clip.prompts import PromptLearner
from dnreid_plugins.modeling.clip.text_tower import ClipTextTower
from dnreid_plugins.modeling.clip.weights import ClipDescription, build_open_clip
from dnreid_plugins.modeling.loss_heads import (
    LOSS_HEAD_REGISTRY,
    ImageText,
    PrototypeClassifier,
    build_loss_heads,
)
from dnreid_plugins.modeling.memories import ClusterMemory
from dnreid_plugins.modeling.parts import Parts
from dnreid_plugins.runtime.sections import construct

D, P = 20, 12
TOY = {
    "embed_dim": P,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 30, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
LABELS_DAY, LABELS_NIGHT = [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2, -1]


def bridging_world() -> World:
    day, night = part(LABELS_DAY, 0, noise=0.7, width=D), part(LABELS_NIGHT, 8, noise=0.7, width=D)
    return world_of(day, night)


def parts_at(here: World, *heads: Any) -> Parts:
    """With outlier rows behind the clusters."""
    return here.parts(*heads, memory=ClusterMemory(outlier_rows=True))


def gradient(loss: Tensor, at: Tensor) -> float:
    (found,) = torch.autograd.grad(loss, at, retain_graph=True, allow_unused=True)
    return 0.0 if found is None else float(found.norm())


# ------------------------------------------------------------------ classifier


def naive_smoothed(logits: Tensor, target: int, smoothing: float) -> Tensor:
    share = torch.full_like(logits, smoothing / len(logits))
    share[target] += 1 - smoothing
    return -(share * logits.log_softmax(0)).sum()


def test_classifier_is_the_memory_at_the_start_and_equals_loops() -> None:
    here, head = bridging_world(), PrototypeClassifier(smoothing=0.1)
    parts, batch = parts_at(here, head), here.batch
    assert head.day.shape == (4, D) and head.night.shape == (3, D)  # outlier rows are no classes
    assert len(parts.memory.rows(Domain.NIGHT)) == 4
    assert torch.equal(head.day.data, here.epoch.day.centroids)
    losses: list[list[Tensor]] = [[], []]
    for feature, target, domain in zip(batch.features, batch.targets.tolist(), batch.domains.tolist()):
        if target >= 0:
            losses[domain].append(naive_smoothed(head.rows(domain) @ feature, target, 0.1))
    expected = sum(torch.stack(one).mean() for one in losses)
    loss = head(batch, parts)
    assert torch.allclose(loss, expected, atol=1e-6)
    assert gradient(loss, batch.features) > 0 and gradient(loss, head.day) > 0


def test_classifier_rows_do_not_share_storage_with_the_memory() -> None:
    here, head = bridging_world(), PrototypeClassifier()
    parts = parts_at(here, head)
    before = parts.memory.rows(Domain.DAY).clone()
    head(here.batch, parts).backward()
    torch.optim.SGD(head.parameters(), lr=1.0).step()
    assert torch.equal(parts.memory.rows(Domain.DAY), before) and not torch.equal(head.day.data, before[:4])


def test_classifier_takes_over_the_size_of_a_checkpoint() -> None:
    head, other = PrototypeClassifier(), PrototypeClassifier()
    parts_at(bridging_world(), head)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.day, head.day) and torch.equal(other.night, head.night)


def test_classifier_without_clusters_in_a_domain() -> None:
    here, head = bridging_world(), PrototypeClassifier()
    here = world_of(here.epoch.day, unclustered(here.epoch.night))
    loss = head(here.batch, parts_at(here, head))
    loss.backward()
    assert torch.isfinite(loss) and head.night.shape == (0, D)


# ------------------------------------------------------------------ image and text


@pytest.fixture(scope="module")
def stage_1() -> tuple[PromptLearner, ClipTextTower]:
    torch.manual_seed(0)
    text = ClipTextTower(model=build_open_clip(ClipDescription("toy", TOY)))
    domains = torch.tensor([0] * len(LABELS_DAY) + [1] * len(LABELS_NIGHT))
    return PromptLearner(text=text, domains=domains, feature_dim=D, bias_hidden=4), text


def image_text(stage_1: Any, **options: Any) -> ImageText:
    head = ImageText(**options)
    head.prepare(*stage_1)
    return head


def test_alignment_by_clusters_equals_loops(stage_1: Any) -> None:
    here, (prompts, text) = bridging_world(), stage_1
    batch = here.batch
    loss = here.loss(image_text(stage_1))
    expected = torch.zeros(())
    for domain in (0, 1):
        places = [i for i in range(15) if batch.domains[i] == domain]
        texts = {}
        for i in places:
            parts = batch.pooled[i, :-P], batch.pooled[i, -P:]
            given = F.normalize(torch.cat([F.normalize(part, dim=0) for part in parts]), dim=0)
            texts[i] = prompts.text_features(text, torch.tensor([i]), given[None])[0]
        names = sorted({int(batch.targets[i]) for i in places} - {-1})
        centroids = torch.stack(
            [
                F.normalize(torch.stack([texts[i] for i in places if batch.targets[i] == c]).mean(0), dim=0)
                for c in names
            ]
        )
        known = [i for i in places if batch.targets[i] >= 0]
        terms = [
            naive_smoothed(centroids @ batch.features[i, -P:], names.index(int(batch.targets[i])), 0.1)
            for i in known
        ]
        expected = expected + torch.stack(terms).mean()
    assert torch.allclose(loss, expected, atol=1e-5)


def test_alignment_by_images_equals_loops(stage_1: Any) -> None:
    """Eq. 2-3 with unit images; the texts have the length that the tower gives them."""
    here = bridging_world()
    head = image_text(stage_1, alignment="instance")
    expected = torch.zeros(())
    for domain in (0, 1):
        one = here.batch.of(domain)
        images = [row[-P:] / row[-P:].norm() for row in one.features]
        texts = list(head.texts(one))
        for rows, columns in ((images, texts), (texts, images)):
            for i, row in enumerate(rows):
                scores = torch.stack([row @ column for column in columns])
                expected = expected - scores.log_softmax(0)[i] / len(rows)
    assert torch.allclose(here.loss(head), expected, atol=1e-5)


@pytest.mark.parametrize("alignment", ["cluster", "instance"])
def test_gradient_reaches_the_projection_and_through_the_text_only_if_asked(
    stage_1: Any, alignment: str
) -> None:
    here, grads = bridging_world(), {}
    for through in (False, True):
        head = image_text(stage_1, alignment=alignment, through_text=through, bias_input="as_released")
        (grads[through],) = torch.autograd.grad(here.loss(head), here.batch.features)
    assert bool(grads[False][:, -P:].norm() > 0)
    # the class token is compared with no text; it matters through the bias net alone
    assert float(grads[False][:, :-P].norm()) == 0.0
    assert bool(grads[True][:, :-P].norm() > 0)
    assert not any(p.requires_grad for p in stage_1[0].parameters())


def test_length_of_the_feature_matters_only_as_released(stage_1: Any) -> None:
    batch = bridging_world().batch
    longer = replace(batch, features=batch.features * 30, pooled=batch.pooled * 30)
    for name, same in (("before", True), ("after", True), ("as_released", False)):
        head = image_text(stage_1, bias_input=name)
        assert torch.allclose(head.texts(longer), head.texts(batch), atol=1e-5) == same


def test_prompts_are_neither_parameters_nor_saved(stage_1: Any) -> None:
    head = image_text(stage_1)
    assert not list(head.parameters()) and not head.state_dict()


def test_image_text_without_prompts_says_so() -> None:
    with pytest.raises(RuntimeError, match="no prompts"):
        bridging_world().loss(ImageText())


# ------------------------------------------------------------------ CPML


def heads(**options: Any) -> tuple[World, Parts]:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ["PrototypeClassifier", "CPML"]
    cfg.MODEL.LOSSES.CPML.TOP_K = 2
    for key, value in options.items():
        cfg.MODEL.LOSSES.CPML[key] = value
    here = bridging_world()
    return here, parts_at(here, *build_loss_heads(cfg).values())


def loss_of(here: World, parts: Parts, name: str = "CPML") -> Tensor:
    return parts.losses[name](here.batch, parts)


@pytest.mark.parametrize(
    ("variant", "encoder", "classifier"),
    [
        ("instance", True, False),
        ("batch_centroid", True, False),
        ("classifier", False, True),
        ("as_released", False, False),
    ],
)
def test_what_each_variant_trains(variant: str, encoder: bool, classifier: bool) -> None:
    here, parts = heads(VARIANT=variant)
    loss = loss_of(here, parts)
    assert float(loss.detach()) != 0.0
    if not loss.requires_grad:
        assert variant == "as_released"
        return
    assert (gradient(loss, here.batch.features) > 0) == encoder
    assert (gradient(loss, parts.losses["PrototypeClassifier"].day) > 0) == classifier


@pytest.mark.parametrize("temperature", [0.07, 0.3])
def test_the_instance_variant_equals_loops(temperature: float) -> None:
    """With the partition made here again: both sides' k nearest, mutual ones positive, the others hard."""
    here, parts = heads(TEMPERATURE=temperature)
    rows = [parts.memory.cluster_rows(domain) for domain in Domain]
    similarity = here.epoch.day.centroids @ here.epoch.night.centroids.T
    near = [
        {(i, j) for i in range(len(table)) for j in table[i].topk(2).indices.tolist()}
        for table in (similarity, similarity.T)
    ]
    near[1] = {(i, j) for j, i in near[1]}
    assert near[0] != near[1]  # so that exchanging the two sides' hard pairs changes the loss
    halves = []
    for domain, own in enumerate(near):
        queries = []
        for feature, target, of in zip(here.batch.features, here.batch.targets, here.batch.domains):
            pairs = [pair for pair in own if pair[domain] == int(target)] if int(of) == domain else []
            scores = {
                pair: F.normalize(feature, dim=0) @ rows[1 - domain][pair[1 - domain]] / temperature
                for pair in pairs
            }
            hard = [scores[pair].exp() for pair in pairs if pair not in near[1 - domain]]
            good = [scores[pair].exp() for pair in pairs if pair in near[1 - domain]]
            if hard and good:
                queries.append(sum(-(one / (one + sum(hard))).log() for one in good) / len(good))
        halves.append(sum(queries) / len(queries))
    assert torch.allclose(loss_of(here, parts), (halves[0] + halves[1]) / 2, atol=1e-5)


def test_as_released_adds_a_number_and_no_gradient() -> None:
    """T1: the sum of the losses has the same gradient with and without it."""
    here, parts = heads(VARIANT="as_released")
    features = here.batch.features
    without = torch.autograd.grad(loss_of(here, parts, "PrototypeClassifier"), features)[0]
    total = loss_of(here, parts, "PrototypeClassifier") + loss_of(here, parts)
    assert torch.equal(torch.autograd.grad(total, features)[0], without)


def test_as_many_neighbours_as_clusters_leave_no_loss() -> None:
    here, parts = heads(TOP_K=4)
    figures = parts.begin_epoch(here.epoch)["CPML"]
    assert figures["hard_negatives"] == 0 and float(loss_of(here, parts).detach()) == 0.0


def test_classifier_variant_needs_the_classifier() -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ["CPML"]
    cfg.MODEL.LOSSES.CPML.VARIANT = "classifier"
    with pytest.raises(ValueError, match="needs PrototypeClassifier"):
        build_loss_heads(cfg)
    for variant in ("instance", "batch_centroid", "as_released"):
        cfg.MODEL.LOSSES.CPML.VARIANT = variant
        assert list(build_loss_heads(cfg)) == ["CPML"]


@pytest.mark.parametrize(
    ("head", "options"),
    [
        ("CPML", {"VARIANT": "none"}),
        ("CPML", {"TOP_K": 0}),
        ("CPML", {"TEMPERATURE": 0.0}),
        ("ImageText", {"ALIGNMENT": "x"}),
        ("PrototypeClassifier", {"SMOOTHING": 1.5}),
    ],
)
def test_wrong_options_are_refused(head: str, options: dict[str, Any]) -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES[head.upper()].update(options)
    ((key, value),) = options.items()
    with pytest.raises(ValueError, match=rf"MODEL\.LOSSES\.{head.upper()}\.{key} is {value!r}; it must be"):
        construct(LOSS_HEAD_REGISTRY.get(head), cfg)
