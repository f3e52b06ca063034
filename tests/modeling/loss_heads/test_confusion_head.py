"""The adversarial head: its classifier has an optimizer of its own, and both resume, replay and agree with the run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from head_world import World, build, configured, parts_of, world
from run_helpers import SeenLosses, cut_and_resumed, same, train, weights
from torch import Tensor

from dnreid_plugins.engine.bad_batch import load_bad_batch, replay
from dnreid_plugins.engine.step import NonFiniteLossError
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.losses.confusion import HalvingClassifier, cross_entropy_by_class
from dnreid_plugins.modeling.loss_heads import build_loss_heads

NAME = "DomainConfusion"
STATE = ("classifier", "velocity")


def with_second_view(here: World) -> World:
    """Every second day image is a further view."""
    views = torch.arange(len(here.batch.targets)) % 2 * (here.batch.domains == 0)
    return replace(here, batch=replace(here.batch, views=views))


@pytest.fixture
def here() -> World:
    return with_second_view(world([0, 0, 1, 1], [0, 0, 1]))


def state_of(head: Any) -> list[Tensor]:
    return [getattr(head, name).clone() for name in STATE]


# ------------------------------------------------------------------ the loss


def test_zero_logits_give_three_times_the_logarithm_of_three(here: World) -> None:
    head = build(NAME, HIDDEN=16)
    parts = here.parts(head)
    head.classifier[-3 * (8 + 1) :] = 0.0
    assert head(here.batch, parts).item() == pytest.approx(3.29584, abs=1e-5)


@pytest.mark.parametrize("second", [True, False])
def test_all_images_are_drawn_to_the_further_day_view_or_to_day(here: World, second: bool) -> None:
    head = build(NAME, HIDDEN=32)
    batch = here.batch if second else replace(here.batch, views=here.batch.views * 0)
    classes = torch.tensor([0, 2, 0, 2, 1, 1, 1] if second else [0, 0, 0, 0, 1, 1, 1])
    parts = here.parts(head)
    logits = HalvingClassifier(16, 32).logits(batch.features, head.classifier)
    loss = head(batch, parts)
    torch.testing.assert_close(loss, cross_entropy_by_class(logits, classes, 2 if second else 0))
    found = (logits.argmax(dim=1) == classes).float().mean()
    assert head.statistics == {"accuracy": found} and not head.statistics["accuracy"].requires_grad
    # It is the encoder that moves: some steps against the constant classifier and the loss has fallen.
    features = batch.features.detach().requires_grad_()
    for _ in range(20):
        moved = head(replace(batch, features=features), parts)
        (gradient,) = torch.autograd.grad(moved, features)
        features = (features - gradient).detach().requires_grad_()
    assert moved.item() < loss.item()


def test_the_classifier_learns_the_classes(here: World) -> None:
    head = build(NAME, HIDDEN=16)
    parts = here.parts(head)
    for _ in range(60):
        head.after_step(here.batch.detach(), parts)
    head(here.batch, parts)
    assert head.statistics["accuracy"] == 1.0


@pytest.mark.parametrize("labels", [([0, 0], []), ([], [0, 0]), ([], [])])
def test_a_batch_of_one_class_gives_zero_and_trains_no_classifier(
    labels: tuple[list[int], list[int]],
) -> None:
    here, head = world(*labels), build(NAME)
    parts = here.parts(head)
    before, loss = state_of(head), head(here.batch, parts)
    (gradient,) = torch.autograd.grad(loss, here.batch.features)
    assert loss.item() == 0.0 and not bool(gradient.any())
    parts.after_step(here.batch.detach())
    assert all(torch.equal(a, b) for a, b in zip(before, state_of(head), strict=True))


# ------------------------------------------------------------------ the classifier's optimizer


def test_its_steps_are_those_of_pytorchs_optimizer(here: World) -> None:
    sgd = {"momentum": 0.8, "weight_decay": 0.05}
    head = configured(NAME, HIDDEN=20, LR=((1, 0.02),), **{key.upper(): value for key, value in sgd.items()})
    parts = here.parts(head)
    plain = torch.nn.Parameter(head.classifier.clone())
    optimizer = torch.optim.SGD([plain], lr=0.02, nesterov=True, **sgd)
    classes = torch.tensor([0, 2, 0, 2, 1, 1, 1])
    for _ in range(3):
        parts.after_step(here.batch.detach())
        optimizer.zero_grad()
        logits = HalvingClassifier(16, 20).logits(here.batch.features.detach(), plain)
        cross_entropy_by_class(logits, classes).backward()
        optimizer.step()
        torch.testing.assert_close(head.classifier, plain.data)


def test_its_rate_is_a_schedule_of_its_own(here: World) -> None:
    head = configured(NAME, HIDDEN=8, LR=((1, 0.01), (2, 0.001), (3, 0.0)), MOMENTUM=0.0, WEIGHT_DECAY=0.0)
    parts, moved = parts_of(head), []
    for number in (1, 2, 3):
        parts.begin_epoch(replace(here.epoch, number=number))
        start = torch.ones_like(head.classifier)
        head.classifier = start.clone()
        parts.after_step(here.batch.detach())
        moved.append(head.classifier - start)
    torch.testing.assert_close(moved[0], 10 * moved[1], atol=1e-6, rtol=1e-3)
    assert bool(moved[0].any()) and not bool(moved[2].any())


def test_a_schedule_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r"MODEL\.LOSSES\.DOMAINCONFUSION\.LR is .*; write"):
        configured(NAME, LR=((2, 0.1), (1, 0.1)))


def test_the_start_is_of_the_seed_and_another_run_begins_anew(here: World) -> None:
    found = []
    for seed in (0, 0, 1):
        cfg = get_cfg()
        cfg.SEED, cfg.MODEL.LOSSES.NAME = seed, (NAME,)
        head = build_loss_heads(cfg)[NAME]
        parts = here.parts(head)
        found.append(state_of(head)[0])
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    parts.after_step(here.batch.detach())
    parts.begin_epoch(here.epoch)
    assert not torch.equal(head.classifier, found[2])  # it goes on in the next epoch
    parts.forget()
    parts.begin_epoch(here.epoch)
    assert torch.equal(head.classifier, found[2]) and not bool(head.velocity.any())


# ------------------------------------------------------------------ whole runs


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    """Two epochs of four steps; the encoder is confused in the second."""
    tiny_cfg.merge_from_list(options(((2, 1.0),)))
    tiny_cfg.DATASETS.TESTS = ()
    return tiny_cfg


def options(weight: Any) -> list[Any]:
    found = ["MODEL.LOSSES.NAME", ["ClusterNCE", NAME], "INPUT.VIEWS.DAY", [[], ["exchange"]]]
    return [*found, "MODEL.LOSSES.DOMAINCONFUSION.HIDDEN", 16, "MODEL.LOSSES.DOMAINCONFUSION.WEIGHT", weight]


def learned(trainer: CrossDomainTrainer) -> dict[str, Tensor]:
    """What is no state of this head."""
    return {key: value for key, value in weights(trainer).items() if f".{NAME}." not in key}


def test_each_step_trains_the_encoder_and_then_the_classifier_alone(
    cfg: CfgNode, caplog: pytest.LogCaptureFixture
) -> None:
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    head: Any = trainer.parts.losses[NAME]
    step, after_step, trained = trainer.run_step, head.after_step, []

    def run_step() -> None:
        before, encoder = state_of(head), learned(trainer)
        step()
        assert all(torch.equal(a, b) for a, b in zip(before, state_of(head), strict=True))
        assert not same(encoder, learned(trainer))

    def watched(batch: Any, parts: Any) -> None:
        before, encoder = state_of(head), learned(trainer)
        after_step(batch, parts)
        trained.append(not any(torch.equal(a, b) for a, b in zip(before, state_of(head), strict=True)))
        assert same(encoder, learned(trainer)) and not batch.features.requires_grad

    trainer.run_step, head.after_step = run_step, watched  # type: ignore[method-assign]
    trainer.register_hooks([seen])
    trainer.train()
    assert trained == [True] * 8
    assert [sorted(one) for one in seen.losses] == [["loss_clusternce"]] * 4 + [
        ["loss_clusternce", "loss_domainconfusion"]
    ] * 4
    assert "has gradient exactly 0" not in caplog.text and "loss_domainconfusion 0" in caplog.text


def test_until_it_has_a_weight_the_encoder_does_not_know_of_it(cfg: CfgNode) -> None:
    cfg.SOLVER.MAX_EPOCH = 1
    with_head = train(cfg)
    cfg.MODEL.LOSSES.NAME, cfg.OUTPUT_DIR = ("ClusterNCE",), cfg.OUTPUT_DIR + "-without"
    without = train(cfg)
    assert same(learned(with_head), weights(without))
    sizes = [
        [p.numel() for g in run.optimizer.param_groups for p in g["params"]] for run in (with_head, without)
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("iteration", [2, 6])
def test_a_run_resumes_inside_an_epoch_bit_exactly(cfg: CfgNode, iteration: int) -> None:
    whole = weights(train(cfg))
    assert whole[f"parts.losses.{NAME}.velocity"].any()
    cfg.OUTPUT_DIR += "-cut"
    assert same(weights(cut_and_resumed(cfg, iteration)), whole)


def test_a_bad_batch_replays(cfg: CfgNode) -> None:
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    trainer.register_hooks([seen])
    memory_loss = trainer.parts.losses["ClusterNCE"]
    forward = memory_loss.forward
    memory_loss.forward = lambda *args: forward(*args) * (float("nan") if trainer.iter == 6 else 1.0)
    with pytest.raises(NonFiniteLossError):
        trainer.train()
    report = replay(load_bad_batch([Path(cfg.OUTPUT_DIR) / "bad_batch.pt"]))[1]
    assert report.name == "loss_domainconfusion" and report.gradient_at_features > 0
    assert report.loss == seen.losses[-1][report.name].item()


def test_neither_averaged_weights_nor_a_teacher_touch_the_classifier(cfg: CfgNode) -> None:
    plain = weights(train(cfg))
    cfg.SOLVER.SWA.ENABLED, cfg.SOLVER.SWA.START_EPOCH = True, 1
    cfg.MODEL.TEACHER.ENABLED, cfg.OUTPUT_DIR = True, cfg.OUTPUT_DIR + "-averaged"
    averaged = weights(train(cfg))
    for name in STATE:
        key = f"parts.losses.{NAME}.{name}"
        assert torch.equal(averaged[key], plain[key])
    key = "heads.bottleneck.0.weight"
    assert not torch.equal(averaged[key], plain[key])
