"""Refiners: named in the config, in their order, from their epoch on, and once per epoch whatever is resumed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode
from grouped_rows import grouped, images
from run_helpers import cut_and_resumed, same, train, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.types import Domain, Epoch
from dnreid_plugins.labels import DomainClusters, Labels, Refiner, TrainImages
from dnreid_plugins.labels.base import make_clusters, refiner, with_clusters
from dnreid_plugins.runtime.sections import Count, Share


@pytest.fixture
def calls(scratch: None) -> list[tuple[str, int]]:
    """Two refiners; returns what they were called for."""
    seen: list[tuple[str, int]] = []

    @refiner
    class DropFirst(Refiner):
        """Makes the images of cluster 0 of each domain outliers.

        Args:
            start: First epoch.
        """

        def __init__(self, *, start: Count = 1) -> None:
            self.start = start

        def __call__(self, epoch: Epoch, features: torch.Tensor, images: TrainImages) -> Epoch:
            seen.append(("DropFirst", epoch.number))
            changed = {}
            for domain in Domain:
                part = epoch[domain]
                labels = torch.where(part.labels > 0, part.labels - 1, -1)
                changed[domain.word] = make_clusters(labels, part.features, part.indices)
            return with_clusters(epoch, changed)

    @refiner
    class SoftLabels(Refiner):
        """Gives every image how near it is to the mean of all.

        Args:
            start: First epoch.
            share: Of the nearness that stays.
        """

        def __init__(self, *, start: Count = 1, share: Share = 0.5) -> None:
            self.start, self.share = start, share

        def __call__(self, epoch: Epoch, features: torch.Tensor, images: TrainImages) -> Epoch:
            seen.append(("SoftLabels", epoch.number))
            near = self.share * features @ features.mean(dim=0) + epoch.day.num_clusters
            return replace(epoch, soft={**epoch.soft, "nearness": near})

    return seen


@pytest.fixture
def cfg(calls: list[tuple[str, int]], tiny_cfg: CfgNode) -> CfgNode:
    tiny_cfg.LABELS.REFINERS = ("DropFirst", "SoftLabels")
    tiny_cfg.LABELS.DROPFIRST.START = 2
    tiny_cfg.SOLVER.MAX_EPOCH, tiny_cfg.SOLVER.STEPS = 3, [2]
    tiny_cfg.SOLVER.CHECKPOINT_KEEP = 20
    tiny_cfg.TEST.EVAL_START = False
    return tiny_cfg


def called_in(*epochs: int) -> list[tuple[str, int]]:
    """Who works in these epochs."""
    names = {True: ("DropFirst", "SoftLabels"), False: ("SoftLabels",)}
    return [(name, epoch) for epoch in epochs for name in names[epoch >= 2]]


def health(cfg: CfgNode) -> list[dict[str, float]]:
    return [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "health.jsonl").read_text().splitlines()]


def test_refiners_work_in_their_order_from_their_epochs_on(
    cfg: CfgNode, calls: list[tuple[str, int]]
) -> None:
    trainer = train(cfg)
    assert calls == called_in(1, 2, 3)
    refined = health(cfg)
    epoch = trainer.bare_model.parts.epoch
    # The second refiner has seen what the first one left.
    assert epoch.soft["nearness"].shape == (72,)
    assert int(epoch.soft["nearness"].mean().round()) == epoch.day.num_clusters == refined[-1]["day/clusters"]
    targets = trainer.step_trainer.pseudo_labels
    assert targets is not None and torch.equal(targets[epoch.day.indices], epoch.day.labels)

    cfg.LABELS.REFINERS = ()
    cfg.OUTPUT_DIR += "-plain"
    train(cfg)
    plain = health(cfg)
    assert plain[0] == refined[0], "a refiner worked before its first epoch"
    for domain in Domain:
        key = f"{domain.word}/clusters"
        assert refined[1][key] == plain[1][key] - 1, "the refiner of epoch 2 did nothing"


def test_the_order_is_that_of_the_config(cfg: CfgNode, calls: list[tuple[str, int]]) -> None:
    cfg.LABELS.REFINERS = ("SoftLabels", "DropFirst")
    epoch = train(cfg).bare_model.parts.epoch
    assert calls[-2:] == [("SoftLabels", 3), ("DropFirst", 3)]
    assert int(epoch.soft["nearness"].mean().round()) == epoch.day.num_clusters + 1


@pytest.mark.parametrize("iteration", [4, 6, 8])
def test_refined_labels_and_soft_targets_resume(
    cfg: CfgNode, calls: list[tuple[str, int]], iteration: int
) -> None:
    """Inside an epoch they come from the checkpoint and nothing is refined twice; an epoch that begins is."""
    whole = train(cfg)
    cfg.OUTPUT_DIR += "-cut"
    calls.clear()
    resumed = cut_and_resumed(cfg, iteration)
    assert same(weights(resumed), weights(whole))
    running = iteration // 4 + 1
    after = range(running + (iteration % 4 > 0), 4)
    assert calls == called_in(*range(1, running + 1), *after)
    mine, theirs = (one.bare_model.parts.epoch for one in (resumed, whole))
    assert torch.equal(mine.soft["nearness"], theirs.soft["nearness"])


def test_soft_targets_of_a_running_epoch_are_in_its_checkpoint(cfg: CfgNode) -> None:
    """The epoch of the checkpoint is the one that goes on, not one that was made anew."""
    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, 9)
    again = CrossDomainTrainer(cfg)
    (Path(cfg.OUTPUT_DIR) / "model_final.pth").unlink()
    (Path(cfg.OUTPUT_DIR) / "last_checkpoint").unlink()
    again.resume_or_load(resume=True)
    assert again.iter == 11
    again.train()
    assert torch.equal(
        again.bare_model.parts.epoch.soft["nearness"], resumed.bare_model.parts.epoch.soft["nearness"]
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "LABELS.REFINERS",
            ("DropLast",),
            r"LABELS\.REFINERS has 'DropLast'; it is one of \['Corrections', 'DensityRelabel', 'DropFirst', 'Joint",
        ),
        (
            "LABELS.SOURCE",
            "Clusters",
            r"LABELS\.SOURCE has 'Clusters'; it is one of \['DomainClusters', 'Ident",
        ),
        ("LABELS.DROPFIRST.START", 0, r"LABELS\.DROPFIRST\.START is 0; it must be at least 1"),
        ("LABELS.SOFTLABELS.SHARE", 1.5, r"LABELS\.SOFTLABELS\.SHARE is 1\.5; it must be from 0 to 1"),
    ],
)
def test_wrong_names_and_values_are_refused(cfg: CfgNode, key: str, value: object, message: str) -> None:
    node, *names = cfg, *key.split(".")
    for name in names[:-1]:
        node = node[name]
    node[names[-1]] = value
    with pytest.raises(ValueError, match=message):
        CrossDomainTrainer(cfg)


def test_labels_without_refiners_are_those_of_the_source() -> None:
    rows, known = grouped(40, 4), images(torch.arange(40) % 2)
    epoch = Labels(DomainClusters(k1=8))(rows, known, number=5, last=9)
    assert (epoch.number, epoch.last) == (5, 9) and not epoch.soft and not epoch.matchings
