"""CAJ as an addition: supervised on two streams, the plain and the exchanged day view, a weighted triplet loss."""

from __future__ import annotations

import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import SeenLosses, cut_and_resumed, same, weights

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.config_files import ConfigError

ADDITIONS = ("caj",)


@pytest.mark.parametrize(("squared", "expected"), [(False, 0.2070), (True, 0.1686)])
def test_the_loss_of_four_points(addition: dict[str, ModuleType], squared: bool, expected: float) -> None:
    """By hand: points 0, 1 | 3, 5 on a line; the image without a label changes nothing."""
    points = torch.tensor([[0.0], [1.0], [3.0], [5.0], [2.0]], requires_grad=True)
    loss = addition["weighted_triplet"].weighted_triplet(
        points, torch.tensor([0, 0, 1, 1, -1]), squared=squared
    )
    assert loss.item() == pytest.approx(expected, abs=1e-4)
    (gradient,) = torch.autograd.grad(loss, points)
    assert bool(torch.isfinite(gradient).all()) and float(gradient.norm()) > 0 and gradient[4] == 0


def test_one_identity_alone_trains_nothing(addition: dict[str, ModuleType]) -> None:
    points = torch.randn(3, 2, requires_grad=True)
    loss = addition["weighted_triplet"].weighted_triplet(points, torch.tensor([0, 0, -1]), squared=True)
    (gradient,) = torch.autograd.grad(loss, points)
    assert loss.item() == 0 and not gradient.any()


def test_a_run_resumes_inside_an_epoch_bit_exactly(cfg: CfgNode, caplog: pytest.LogCaptureFixture) -> None:
    cfg.INPUT.REA.ENABLED = False  # so that an exchanged view can be told by its colours
    caplog.set_level(logging.INFO)
    seen, whole = SeenLosses(), CrossDomainTrainer(cfg)
    whole.register_hooks([seen])
    batches: list[dict[str, Any]] = []
    forward = whole.bare_model.forward
    whole.bare_model.forward = lambda batch: (batches.append(batch), forward(batch))[1]
    whole.resume_or_load()
    whole.train()
    assert all(sorted(one) == ["loss_identityclassifier", "loss_weightedtriplet"] for one in seen.losses)
    assert whole.bare_model.backbone.two_streams
    assert "audit, gradient norm" in caplog.text and "gradient exactly 0" not in caplog.text
    first, last = (
        sum(float(one["loss_identityclassifier"]) for one in part)
        for part in (seen.losses[:4], seen.losses[4:])
    )
    assert last < first

    # Plain day views, exchanged day views of the same images, night images of the same identities.
    data = whole.train_data
    assert data is not None and data.images.true_ids is not None
    trained = [batch for batch in batches if "targets" in batch and len(batch["targets"]) == 24]
    assert len(trained) == 8
    for batch in trained:
        images, places = batch["images"], batch["indices"].tolist()
        assert batch["views"].tolist() == [0] * 8 + [1] * 8 + [0] * 8 and places[:8] == places[8:16]
        grey = [bool((one[0] == one[1]).all() and (one[0] == one[2]).all()) for one in images[:16]]
        assert grey == [False] * 8 + [True] * 8
        ids = data.images.true_ids[places]
        assert ids[:8].tolist() == ids[16:].tolist()

    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, 6)
    assert same(weights(resumed), weights(whole))
    assert whole.parts.losses["IdentityClassifier"].layer.shape == (6, 16)


def test_labels_are_the_identities_in_every_domain_and_in_both(cfg: CfgNode) -> None:
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load()
    trainer.train()
    epoch = trainer.parts.epoch
    assert epoch is not None and list(epoch.clusters) == ["day", "night", "joint"]
    joint = epoch.clusters["joint"]
    assert torch.equal(joint.labels, torch.as_tensor(trainer.train_data.images.true_ids))
    assert [epoch.clusters[name].num_clusters for name in epoch.clusters] == [6, 6, 6]
    assert trainer.parts.memory.rows("joint").shape == (6, 16)


@pytest.mark.parametrize("name", ["IdentityClassifier", "WeightedTriplet"])
def test_a_bad_batch_replays(replays: Callable[[str, int], None], name: str) -> None:
    replays(name, 6)


@pytest.mark.parametrize("name", ["IdentityClassifier", "WeightedTriplet"])
def test_without_joint_clusters_it_is_refused_before_any_image_is_read(
    cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", "nowhere")
    cfg.MODEL.LOSSES.NAME, cfg.LABELS.SOURCE = (name,), "DomainClusters"
    reader = "JointMatcher" if name == "WeightedTriplet" else name
    with pytest.raises(ConfigError, match=f"{reader} reads the clusters 'joint', but the labels have"):
        CrossDomainTrainer(cfg)
