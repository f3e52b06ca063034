"""Contrast with dynamic prototypes: whose features begin and refill them, per domain, and the released constant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode, get_cfg
from fastreid.engine.train_loop import HookBase
from head_world import World, turned_world, world
from run_helpers import cut_and_resumed, same, train, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.losses.hybrid import dynamic_nce
from dnreid_plugins.functional.memory_update import spread_rows
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.modeling.loss_heads import build_loss_heads


def dynamic(**options: Any) -> Any:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME, cfg.MODEL.TEACHER.ENABLED = ("DynamicContrast",), True
    for key, value in {"WEIGHT": ((1, 1.0),), **options}.items():
        cfg.MODEL.LOSSES.DYNAMICCONTRAST[key] = value
    return build_loss_heads(cfg)["DynamicContrast"]


def taught(here: World, seed: int = 0) -> World:
    """The same world whose batch holds features of a teacher."""
    features = torch.randn(here.batch.features.shape, generator=torch.Generator().manual_seed(seed))
    return replace(here, batch=replace(here.batch, extra={"teacher": features}))


def test_an_epoch_begins_with_the_features_of_its_labels() -> None:
    here, head = taught(turned_world()), dynamic(ROWS=4, TEMPERATURE=1.0)
    parts, expected = here.parts(head), torch.zeros(())
    for domain in Domain:
        clusters, part = here.epoch[domain], here.batch.of(domain)
        rows = spread_rows(clusters.features, clusters.labels, clusters.num_clusters, 4)
        expected = expected + dynamic_nce(part.unit, part.targets, rows, temperature=1.0)
    loss = head(here.batch, parts)
    assert loss.item() > 0.1
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, here.batch.features)
    assert (gradient.norm(dim=1) > 0).tolist() == (here.batch.targets >= 0).tolist()
    assert dynamic().num_rows == 16


def test_the_teachers_features_of_plain_images_replace_the_oldest_rows() -> None:
    here, head = taught(turned_world()), dynamic(ROWS=2)
    parts = here.parts(head)
    views = torch.zeros(15, dtype=torch.int64)
    views[3] = 1  # the second image of day cluster 1
    batch = replace(here.batch.detach(), views=views)
    unit = F.normalize(batch.extra["teacher"], dim=1)
    before = head.rows_day.clone()
    head.after_step(batch, parts)
    assert torch.equal(head.rows_day[0], unit[[0, 1]])
    assert torch.equal(head.rows_day[1], torch.stack([unit[2], before[1, 1]]))
    assert head.oldest_day.tolist() == [0, 1, 0]
    # Night cluster 0 has three images: the last two stay, the third one in the place of the first.
    of_zero = [place for place in range(7, 15) if here.batch.targets[place] == 0]
    assert torch.equal(head.rows_night[0], unit[[of_zero[2], of_zero[1]]])
    loss = head(here.batch, parts)
    head.after_step(taught(here, 1).batch.detach(), parts)
    assert head(here.batch, parts).item() != loss.item()
    parts.begin_epoch(here.epoch)
    assert torch.equal(head.rows_day, before) and head.oldest_day.tolist() == [0, 0, 0]


def test_as_released_it_is_a_constant_on_rows_that_never_change() -> None:
    here, head = taught(turned_world()), dynamic(ROWS=2, AS_RELEASED=True)
    parts, expected = here.parts(head), 0.0
    before = weights_of(head)
    for domain in Domain:
        part, rows = here.batch.of(domain), getattr(head, f"rows_{domain.word}")
        expected += dynamic_nce(F.normalize(part.extra["teacher"], dim=1), part.targets, rows).item()
    loss = head(here.batch, parts)
    assert loss.item() == pytest.approx(expected)
    assert torch.equal(torch.autograd.grad(loss, here.batch.features)[0], torch.zeros(15, 16))
    head.after_step(here.batch.detach(), parts)
    assert all(torch.equal(value, before[key]) for key, value in head.state_dict().items())


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in module.state_dict().items()}


DEGENERATE = {
    "one cluster each": ([0, 0], [0, 0]),
    "no night cluster": ([0, 0, 1, 1], [-1, -1]),
    "no day cluster": ([-1, -1], [0, 0, 1, 1]),
    "more night clusters": ([0, 0], [0, 0, 1, 1, 2, 2]),
    "no night image in the batch": ([0, 0, 1, 1], []),
}


@pytest.mark.parametrize("case", sorted(DEGENERATE))
def test_degenerate_cases_stay_finite_and_connected(case: str) -> None:
    here, head = taught(world(*DEGENERATE[case])), dynamic()
    parts = here.parts(head)
    for _ in range(2):
        loss = head(here.batch, parts)
        (gradient,) = torch.autograd.grad(loss, here.batch.features)
        assert torch.isfinite(loss) and bool(torch.isfinite(gradient).all())
        head.after_step(here.batch.detach(), parts)


def test_without_a_teacher_it_is_refused() -> None:
    cfg = get_cfg()
    cfg.MODEL.LOSSES.NAME = ("DynamicContrast",)
    with pytest.raises(
        ValueError, match="DynamicContrast contrasts with the teacher's features, but MODEL.TEACHER"
    ):
        build_loss_heads(cfg)


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    tiny_cfg.MODEL.TEACHER.ENABLED, tiny_cfg.MODEL.TEACHER.DECAY = True, 0.8
    tiny_cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "DynamicContrast")
    tiny_cfg.MODEL.LOSSES.DYNAMICCONTRAST.WEIGHT = ((2, 1.0),)
    tiny_cfg.MODEL.LOSSES.DYNAMICCONTRAST.ROWS = 3
    tiny_cfg.INPUT.VIEWS.DAY = ((), ("exchange",))
    return tiny_cfg


class SeenTeacher(HookBase):
    """Compares what the parts get with a pass of the teacher over the same images."""

    def __init__(self) -> None:
        self.differences: list[float] = []

    def before_step(self) -> None:
        model: Any = self.trainer.bare_model
        encoder = model.parts.teacher.encoder
        forward = model.preprocess_image

        def seen(batch: dict[str, Any]) -> torch.Tensor:
            images = forward(batch)
            with torch.no_grad():
                self.expected = encoder["heads"](encoder["backbone"](images, batch["domains"]))
            return images

        model.preprocess_image = seen

    def after_step(self) -> None:
        model: Any = self.trainer.bare_model
        del model.preprocess_image
        extra = model.last_batch.extra
        if self.trainer.epoch + 1 < 2:
            assert extra == {}, "the teacher works for nobody"
        else:
            self.differences.append(float((extra["teacher"] - self.expected).abs().max()))


def test_a_batch_holds_what_the_teacher_makes_of_it_only_while_a_head_asks(cfg: CfgNode) -> None:
    trainer, seen = CrossDomainTrainer(cfg), SeenTeacher()
    trainer.register_hooks([seen])
    trainer.train()
    assert seen.differences == [0.0] * 4


@pytest.mark.parametrize("iteration", [5, 6])
def test_it_resumes_inside_an_epoch_bit_exactly(cfg: CfgNode, iteration: int) -> None:
    whole = train(cfg)
    head: Any = whole.parts.losses["DynamicContrast"]
    assert whole.parts.epoch is not None
    clusters = whole.parts.epoch.day
    begun = spread_rows(clusters.features, clusters.labels, clusters.num_clusters, 3)
    assert head.rows_day.shape == begun.shape and not torch.equal(head.rows_day, begun)
    torch.testing.assert_close(head.rows_day.norm(dim=2), torch.ones(head.rows_day.shape[:2]))
    cfg.OUTPUT_DIR += "-cut"
    assert same(weights(cut_and_resumed(cfg, iteration)), weights(whole))
