"""The loss heads of Bridging Day and Night against loops, and what each of them trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import get_cfg
from torch import Tensor

from dnreid_plugins.functional.types import Domain, DomainClusters, EpochClusters
from dnreid_plugins.modeling.batch import BatchFeatures
from dnreid_plugins.modeling.clip_weights import ClipDescription, build_open_clip
from dnreid_plugins.modeling.loss_heads import CPML, ImageText, PrototypeClassifier, build_loss_heads
from dnreid_plugins.modeling.loss_heads.cpml import nearest_positive
from dnreid_plugins.modeling.memory import PrototypeMemory
from dnreid_plugins.modeling.prompts import PromptLearner
from dnreid_plugins.modeling.text import ClipTextTower

D, P = 20, 12
TOY = {
    "embed_dim": P,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 30, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
LABELS_DAY, LABELS_NIGHT = [0, 0, 1, 1, 2, 2, 3, 3], [0, 0, 1, 1, 2, 2, -1]


def part(labels: list[int], first: int) -> DomainClusters:
    target = torch.tensor(labels)
    directions = torch.randn(4, D, generator=torch.Generator().manual_seed(3))
    noise = torch.randn(len(labels), D, generator=torch.Generator().manual_seed(first))
    features = F.normalize(directions[target.clamp(min=0)] + 0.7 * noise, dim=1)
    rows = torch.stack([features[target == c].mean(0) for c in range(int(target.max()) + 1)])
    return DomainClusters(target, features, F.normalize(rows, dim=1), first + torch.arange(len(labels)))


def world() -> tuple[EpochClusters, PrototypeMemory, BatchFeatures]:
    clusters = EpochClusters(part(LABELS_DAY, 0), part(LABELS_NIGHT, len(LABELS_DAY)), 1, 10)
    memory = PrototypeMemory(outlier_rows=True)
    memory.rebuild(clusters, "cpu")
    features = torch.cat([clusters.day.features, clusters.night.features]) * 4 + 0.2
    features.requires_grad_()
    domains = torch.tensor([0] * len(LABELS_DAY) + [1] * len(LABELS_NIGHT))
    targets = torch.tensor(LABELS_DAY + LABELS_NIGHT)
    return clusters, memory, BatchFeatures(features, features, targets, domains, torch.arange(len(targets)))


def gradient(loss: Tensor, at: Tensor) -> float:
    (found,) = torch.autograd.grad(loss, at, retain_graph=True, allow_unused=True)
    return 0.0 if found is None else float(found.norm())


# ------------------------------------------------------------------ classifier


def naive_smoothed(logits: Tensor, target: int, smoothing: float) -> Tensor:
    share = torch.full_like(logits, smoothing / len(logits))
    share[target] += 1 - smoothing
    return -(share * logits.log_softmax(0)).sum()


def test_classifier_is_the_memory_at_the_start_and_equals_loops() -> None:
    clusters, memory, batch = world()
    head = PrototypeClassifier(smoothing=0.1)
    head.begin_epoch(clusters, memory)
    assert head.day.shape == (4, D) and head.night.shape == (3, D)  # outlier rows are no classes
    assert torch.equal(head.day.data, clusters.day.centroids)
    losses = [[], []]
    for feature, target, domain in zip(batch.features, batch.targets.tolist(), batch.domains.tolist()):
        if target >= 0:
            losses[domain].append(naive_smoothed(head.rows(domain) @ feature, target, 0.1))
    expected = sum(torch.stack(one).mean() for one in losses)
    loss = head(batch, memory)
    assert torch.allclose(loss, expected, atol=1e-6)
    assert gradient(loss, batch.features) > 0 and gradient(loss, head.day) > 0


def test_classifier_rows_do_not_share_storage_with_the_memory() -> None:
    clusters, memory, batch = world()
    head = PrototypeClassifier()
    head.begin_epoch(clusters, memory)
    before = memory.rows(Domain.DAY).clone()
    head(batch, memory).backward()
    torch.optim.SGD(head.parameters(), lr=1.0).step()
    assert torch.equal(memory.rows(Domain.DAY), before) and not torch.equal(head.day.data, before[:4])


def test_classifier_takes_over_the_size_of_a_checkpoint() -> None:
    clusters, memory, _ = world()
    head, other = PrototypeClassifier(), PrototypeClassifier()
    head.begin_epoch(clusters, memory)
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.day, head.day) and torch.equal(other.night, head.night)


def test_classifier_without_clusters_in_a_domain() -> None:
    clusters, memory, batch = world()
    night = DomainClusters(
        torch.full((7,), -1), clusters.night.features, torch.zeros(0, D), clusters.night.indices
    )
    clusters = EpochClusters(clusters.day, night, 1, 10)
    memory.rebuild(clusters, "cpu")
    head = PrototypeClassifier()
    head.begin_epoch(clusters, memory)
    targets = torch.where(batch.domains == 1, -1, batch.targets)
    loss = head(BatchFeatures(batch.features, batch.pooled, targets, batch.domains, batch.indices), memory)
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
    _, memory, batch = world()
    prompts, text = stage_1
    loss = image_text(stage_1)(batch, memory)
    expected = torch.zeros(())
    for domain in (0, 1):
        places = [i for i in range(15) if batch.domains[i] == domain]
        texts = {i: prompts.text_features(text, torch.tensor([i]), batch.unit[i : i + 1])[0] for i in places}
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


@pytest.mark.parametrize("alignment", ["cluster", "instance"])
def test_gradient_reaches_the_projection_and_through_the_text_only_if_asked(
    stage_1: Any, alignment: str
) -> None:
    _, memory, batch = world()
    grads = {}
    for through in (False, True):
        head = image_text(stage_1, alignment=alignment, through_text=through, unit_input=False)
        (grads[through],) = torch.autograd.grad(head(batch, memory), batch.features)
    assert bool(grads[False][:, -P:].norm() > 0)
    # the class token is compared with no text; it matters through the bias net alone
    assert float(grads[False][:, :-P].norm()) == 0.0
    assert bool(grads[True][:, :-P].norm() > 0)
    assert not any(p.requires_grad for p in stage_1[0].parameters())


def test_length_of_the_feature_matters_only_as_released(stage_1: Any) -> None:
    _, _, batch = world()
    longer = BatchFeatures(batch.features * 30, batch.pooled, batch.targets, batch.domains, batch.indices)
    unit, released = image_text(stage_1), image_text(stage_1, unit_input=False)
    assert torch.allclose(unit.texts(longer), unit.texts(batch), atol=1e-5)
    assert not torch.allclose(released.texts(longer), released.texts(batch), atol=1e-5)


def test_prompts_are_neither_parameters_nor_saved(stage_1: Any) -> None:
    head = image_text(stage_1)
    assert not list(head.parameters()) and not head.state_dict()


def test_image_text_without_prompts_says_so() -> None:
    _, memory, batch = world()
    with pytest.raises(RuntimeError, match="no prompts"):
        ImageText()(batch, memory)


# ------------------------------------------------------------------ CPML


def heads(**options: Any) -> tuple[CPML, PrototypeClassifier, PrototypeMemory, BatchFeatures]:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ["PrototypeClassifier", "CPML"]
    cfg.MODEL.LOSSES.CPML.TOP_K = 2
    for key, value in options.items():
        cfg.MODEL.LOSSES.CPML[key] = value
    built: Any = build_loss_heads(cfg)
    clusters, memory, batch = world()
    for head in built.values():
        head.begin_epoch(clusters, memory)
    return built["CPML"], built["PrototypeClassifier"], memory, batch


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
    cpml, layers, memory, batch = heads(VARIANT=variant)
    loss = cpml(batch, memory)
    assert float(loss.detach()) != 0.0
    if not loss.requires_grad:
        assert variant == "as_released"
        return
    assert (gradient(loss, batch.features) > 0) == encoder
    assert (gradient(loss, layers.day) > 0) == classifier


def test_as_released_adds_a_number_and_no_gradient() -> None:
    """T1: the sum of the losses has the same gradient with and without it."""
    cpml, layers, memory, batch = heads(VARIANT="as_released")
    without = torch.autograd.grad(layers(batch, memory), batch.features)[0]
    total = layers(batch, memory) + cpml(batch, memory)
    assert torch.equal(torch.autograd.grad(total, batch.features)[0], without)


def test_as_many_neighbours_as_clusters_leave_no_loss() -> None:
    cpml, _, memory, batch = heads(TOP_K=4)
    figures = cpml.begin_epoch(world()[0], memory)
    assert figures["hard_negatives"] == 0 and float(cpml(batch, memory)) == 0.0


def test_classifier_variant_needs_the_classifier() -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ["CPML"]
    cfg.MODEL.LOSSES.CPML.VARIANT = "classifier"
    with pytest.raises(ValueError, match="needs PrototypeClassifier"):
        build_loss_heads(cfg)


@pytest.mark.parametrize(("day", "night"), [(5, 3), (1, 4), (0, 3), (3, 0)])
def test_nearest_positive_equals_loops(day: int, night: int) -> None:
    generator = torch.Generator().manual_seed(day * 10 + night)
    similarity = torch.rand(day, night, generator=generator)
    positives = torch.rand(day, night, generator=generator) < 0.5
    found = nearest_positive(similarity, positives)
    for i in range(day):
        allowed = [j for j in range(night) if positives[i, j]]
        best = max(allowed, key=lambda j: float(similarity[i, j])) if allowed else -1
        assert int(found.day_to_night[i]) == best
        assert float(found.day_score[i]) == (float(similarity[i, best]) if allowed else 0.0)
    for j in range(night):
        allowed = [i for i in range(day) if positives[i, j]]
        assert int(found.night_to_day[j]) == (
            max(allowed, key=lambda i: float(similarity[i, j])) if allowed else -1
        )


@pytest.mark.parametrize(
    ("head", "options"),
    [
        (CPML, {"variant": "none"}),
        (CPML, {"top_k": 0}),
        (CPML, {"temperature": 0.0}),
        (ImageText, {"alignment": "x"}),
        (PrototypeClassifier, {"smoothing": 1.5}),
    ],
)
def test_wrong_options_are_refused(head: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"MODEL\.LOSSES\."):
        head(**options)
