"""Several streams of batches: what each draws, whose rows it moves, and that an iteration counts once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from fastreid.engine.train_loop import HookBase
from run_helpers import SeenLosses, cut_and_resumed, same, train, weights

from dnreid_plugins.engine import step
from dnreid_plugins.engine.bad_batch import load_bad_batch, replay
from dnreid_plugins.engine.preflight import check
from dnreid_plugins.engine.preflight import parts as preflight_parts
from dnreid_plugins.engine.step import NonFiniteLossError
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.losses.contrast import cluster_nce
from dnreid_plugins.functional.types import Domain, Epoch, TrainImages
from dnreid_plugins.labels.base import Refiner, make_clusters, refiner, with_clusters
from dnreid_plugins.labels.build import build_labels
from dnreid_plugins.runtime.config_files import ConfigError
from dnreid_plugins.runtime.sections import Count


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    """Labels are the identities, so that every joint cluster has images of both domains."""
    tiny_cfg.LABELS.SOURCE = "Identities"
    tiny_cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "JointContrast")
    tiny_cfg.DATALOADER.STREAMS = ("domains", "joint")
    return tiny_cfg


@pytest.fixture
def union(cfg: CfgNode) -> CfgNode:
    """One stream of joint clusters as they are."""
    cfg.MODEL.LOSSES.NAME = ("JointContrast",)
    cfg.MODEL.LOSSES.JOINTCONTRAST.STREAM, cfg.DATALOADER.STREAMS = "union", ("union",)
    return cfg


class Watch(HookBase):
    """What every forward pass got, and what the rows were around it."""

    def __init__(self, trainer: CrossDomainTrainer) -> None:
        self.batches: list[dict[str, Any]] = []
        self.moved: list[set[str]] = []
        self.optimizer_steps = self.hook_steps = 0
        self.rates: list[float] = []
        memory, parts = trainer.parts.memory, trainer.parts
        forward, after_step, step = trainer.bare_model.forward, parts.after_step, trainer.optimizer.step

        def seen_forward(batch: dict[str, Any]) -> Any:
            if trainer.bare_model.training:
                self.batches.append(batch)
            return forward(batch)

        def seen_after_step(batch: Any) -> None:
            before = {name: rows.clone() for name, rows in memory.named_buffers()}
            after_step(batch)
            self.moved.append(
                {name for name, rows in memory.named_buffers() if not torch.equal(rows, before[name])}
            )

        def seen_step(*args: Any) -> Any:
            self.optimizer_steps += 1
            return step(*args)

        trainer.bare_model.forward = seen_forward
        parts.after_step = seen_after_step  # type: ignore[method-assign]
        trainer.optimizer.step = seen_step
        trainer.register_hooks([self])

    def after_step(self) -> None:
        self.hook_steps += 1
        self.rates.append(self.trainer.optimizer.param_groups[0]["lr"])


def watched(cfg: CfgNode) -> tuple[CrossDomainTrainer, Watch]:
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load()
    watch = Watch(trainer)
    trainer.train()
    return trainer, watch


def test_an_iteration_has_a_step_for_every_stream_and_counts_once(cfg: CfgNode) -> None:
    plain = cfg.clone()
    plain.MODEL.LOSSES.NAME, plain.DATALOADER.STREAMS = ("ClusterNCE",), ("domains",)
    plain.OUTPUT_DIR += "-plain"
    one, two = watched(plain)[1], watched(cfg)[1]
    assert one.optimizer_steps == one.hook_steps == two.hook_steps == 8 and two.optimizer_steps == 16
    assert two.rates == one.rates
    assert [batch.get("stream", "domains") for batch in two.batches] == ["domains", "joint"] * 8
    assert two.moved == [{"own_day", "own_night"}, {"own_joint"}] * 8


def test_data_time_is_that_of_all_streams(cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(step, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    assert train(cfg).storage.history("data_time").values() == [(2.0, place) for place in range(8)]


def test_the_first_stream_draws_the_batches_of_a_run_without_the_second(cfg: CfgNode) -> None:
    both = [batch["indices"] for batch in watched(cfg)[1].batches]
    cfg.MODEL.LOSSES.NAME, cfg.DATALOADER.STREAMS = ("ClusterNCE",), ("domains",)
    cfg.OUTPUT_DIR += "-alone"
    alone = [batch["indices"] for batch in watched(cfg)[1].batches]
    assert all(torch.equal(a, b) for a, b in zip(alone, both[::2], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(both[::2], both[1::2], strict=True))


def test_a_joint_batch_has_as_many_day_as_night_images_of_each_cluster(cfg: CfgNode) -> None:
    cfg.INPUT.VIEWS.DAY = ((), ("exchange",))
    trainer, watch = watched(cfg)
    ids = torch.as_tensor(trainer.train_data.images.true_ids)
    for batch in watch.batches[1::2]:
        day, again, night = batch["indices"].split(8)
        assert (
            batch["domains"].tolist() == [0] * 16 + [1] * 8
            and batch["views"].tolist() == [0] * 8 + [1] * 8 + [0] * 8
        )
        assert torch.equal(day, again) and torch.equal(ids[day], ids[night])
        assert torch.equal(ids[day].view(4, 2)[:, 0], ids[day].view(4, 2)[:, 1])
        assert len(ids[day].unique()) == 4


def test_a_union_batch_has_clusters_of_both_domains_as_they_are(union: CfgNode) -> None:
    trainer, watch = watched(union)
    ids = torch.as_tensor(trainer.train_data.images.true_ids)
    counts = set()
    for batch in watch.batches:
        own = ids[batch["indices"]].view(8, 2)
        assert torch.equal(own[:, 0], own[:, 1]) and len(batch["indices"].unique()) >= 12
        counts.add(int((batch["domains"] == 0).sum()))
    assert len(counts) > 1  # nobody has put as many day as night images into a batch
    assert watch.moved == [{"own_joint"}] * 8


def test_the_loss_contrasts_with_the_joint_rows(cfg: CfgNode, union: CfgNode) -> None:
    for per_domain in (True, False):
        union.MODEL.LOSSES.JOINTCONTRAST.PER_DOMAIN = per_domain
        union.MODEL.LOSSES.JOINTCONTRAST.TEMPERATURE = 0.3
        trainer = train(union)
        parts, batch = trainer.parts, trainer.bare_model.last_batch
        assert parts.epoch is not None
        head, rows = parts.losses["JointContrast"], parts.memory.rows("joint")
        groups = [batch.of(domain) for domain in Domain] if per_domain else [batch]
        expected = sum(
            cluster_nce(one.unit, parts.epoch.targets("joint", one.indices), rows, temperature=0.3)
            for one in groups
        )
        assert float(head(batch, parts)) == pytest.approx(float(expected)) and float(expected) > 0


def test_hybrid_rows_of_joint_clusters(cfg: CfgNode) -> None:
    cfg.MODEL.MEMORY.UPDATE, cfg.MODEL.MEMORY.EXTRA_BANKS = "mean", (("hard", "hardest_of_own"),)
    cfg.MODEL.LOSSES.JOINTCONTRAST.BANK = "hybrid"
    trainer, watch = watched(cfg)
    assert watch.moved[1] == {"own_joint", "hard_joint"}
    parts, batch = trainer.parts, trainer.bare_model.last_batch
    before = parts.losses["JointContrast"](batch, parts)
    parts.memory.set_rows("joint", -parts.memory.cluster_rows("joint", "hard"), "hard")
    assert float(parts.losses["JointContrast"](batch, parts)) != float(before)


@pytest.mark.parametrize("kind", ["both", "union"])
def test_a_run_resumes_inside_an_epoch_bit_exactly(
    cfg: CfgNode, request: pytest.FixtureRequest, kind: str
) -> None:
    cfg = cfg if kind == "both" else request.getfixturevalue("union")
    cfg.MODEL.TEACHER.ENABLED, cfg.MODEL.TEACHER.DECAY = True, 0.8
    whole = train(cfg)
    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, 6)
    assert same(weights(resumed), weights(whole))


def test_the_teacher_moves_once_an_iteration(cfg: CfgNode) -> None:
    cfg.MODEL.TEACHER.ENABLED, cfg.MODEL.TEACHER.DECAY = True, 0.5
    cfg.DATALOADER.ITERS_PER_EPOCH, cfg.SOLVER.MAX_EPOCH = 1, 1
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load()
    name = "backbone.backbone.conv1.day.weight"
    start = weights(trainer)[name]
    trainer.train()
    after = weights(trainer)
    assert torch.allclose(after[f"parts.teacher.encoder.{name}"], (start + after[name]) / 2)


@pytest.fixture
def late_joint(scratch: None) -> None:
    """A refiner that makes the clusters "joint" from epoch 2 on."""

    @refiner
    class LateJoint(Refiner):
        """Everything of a domain's first cluster and the other's, from epoch 2 on.

        Args:
            start: First epoch.
        """

        makes = ("joint",)

        def __init__(self, *, start: Count = 2) -> None:
            self.start = start

        def __call__(self, epoch: Epoch, features: torch.Tensor, images: TrainImages) -> Epoch:
            labels = torch.full((len(images),), -1)
            for domain in Domain:
                labels[epoch[domain].indices] = torch.where(epoch[domain].labels == 0, 0, -1)
            labels[torch.nonzero(labels < 0)[:4]] = 1  # of one domain only: rows, but never drawn
            return with_clusters(epoch, {"joint": make_clusters(labels, features, torch.arange(len(images)))})


def test_a_stream_begins_with_its_clusters(late_joint: None, tiny_cfg: CfgNode) -> None:
    cfg = tiny_cfg
    cfg.MODEL.LOSSES.NAME, cfg.DATALOADER.STREAMS = ("ClusterNCE", "JointContrast"), ("domains", "joint")
    cfg.MODEL.LOSSES.JOINTCONTRAST.WEIGHT = ((2, 1.0),)
    cfg.LABELS.REFINERS = ("LateJoint",)
    trainer, watch = watched(cfg)
    assert [batch.get("stream", "domains") for batch in watch.batches] == ["domains"] * 4 + [
        "domains",
        "joint",
    ] * 4
    assert trainer.parts.epoch is not None and trainer.parts.epoch.mixed().tolist() == [True, False]
    drawn = torch.cat([batch["indices"] for batch in watch.batches if "stream" in batch])
    assert trainer.parts.epoch.targets("joint", drawn).unique().tolist() == [0]
    cfg.MODEL.LOSSES.JOINTCONTRAST.WEIGHT = ((1, 1.0),)
    with pytest.raises(ConfigError, match="JointContrast reads the clusters 'joint', but the labels have"):
        check(cfg)
    cfg.LABELS.LATEJOINT.START = 3
    cfg.MODEL.LOSSES.JOINTCONTRAST.WEIGHT = ((2, 1.0),)
    with pytest.raises(ConfigError, match="reads the clusters 'joint' in epoch 2, but"):
        check(cfg)


def test_a_stream_without_a_mixed_cluster_is_left_out_of_the_epoch(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Epoch, "mixed", lambda self, name="joint": torch.zeros(6, dtype=torch.bool))
    watch = watched(cfg)[1]
    assert len(watch.batches) == 8
    assert "Epoch 1 has no cluster for the stream 'joint': it is left out." in caplog.text


def test_a_bad_batch_of_the_second_stream_replays(cfg: CfgNode) -> None:
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    trainer.register_hooks([seen])
    head = trainer.parts.losses["JointContrast"]
    forward = head.forward
    head.forward = lambda *args: forward(*args) * (float("nan") if trainer.iter == 5 else 1.0)
    with pytest.raises(NonFiniteLossError, match="loss_jointcontrast is nan at iteration 5"):
        trainer.train()
    content = load_bad_batch([Path(cfg.OUTPUT_DIR) / "bad_batch.pt"])
    (report,) = replay(content)
    assert report.name == "loss_jointcontrast" and report.gradient_at_features > 0
    assert content["batch"]["stream"] == "joint" and len(seen.losses) == 12


def refusals() -> list[tuple[str, Callable[[CfgNode], None], str]]:
    def streams(*names: str) -> Callable[[CfgNode], None]:
        return lambda cfg: cfg.DATALOADER.__setattr__("STREAMS", names)

    return [
        ("no stream", streams(), r"DATALOADER.STREAMS is \(\)"),
        ("unknown", streams("domains", "both"), "it names at least one of"),
        ("twice", streams("domains", "domains"), "each once"),
        ("missing", streams("domains"), "JointContrast is a loss of the batches 'joint'"),
        ("useless", streams("domains", "joint", "union"), "'union', of which no loss"),
        (
            "no joint clusters",
            lambda cfg: cfg.LABELS.__setattr__("SOURCE", "DomainClusters"),
            "JointContrast reads the clusters 'joint', but the labels have",
        ),
        (
            "no hard bank",
            lambda cfg: cfg.MODEL.LOSSES.JOINTCONTRAST.__setattr__("BANK", "hybrid"),
            "JointContrast contrasts with a bank called 'hard'",
        ),
    ]


@pytest.mark.parametrize(("change", "text"), [r[1:] for r in refusals()], ids=[r[0] for r in refusals()])
def test_streams_that_cannot_work_are_refused(
    cfg: CfgNode, change: Callable[[CfgNode], None], text: str
) -> None:
    check(cfg)
    change(cfg)
    with pytest.raises(ConfigError, match=text):
        check(cfg)


@pytest.mark.parametrize(("processes", "modules"), [(1, True), (2, True), (2, False)])
def test_several_processes_and_a_union_in_two_streams(
    union: CfgNode, monkeypatch: pytest.MonkeyPatch, processes: int, modules: bool
) -> None:
    if not modules:
        union.MODEL.DUAL_STREAM.MODULES = ()
    parts = CrossDomainTrainer(union).parts
    monkeypatch.setattr(preflight_parts.comm, "get_world_size", lambda: processes)
    objection = preflight_parts._streams(union, parts, build_labels(union))
    refused = "DATALOADER.STREAMS has 'union', whose batches have any number of day images"
    assert objection is None if processes == 1 or not modules else str(objection).startswith(refused)
