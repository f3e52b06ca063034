"""True identities as a label source: supervised rows on the encoder, sampler and parts of the unsupervised ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastreid.config import CfgNode
from grouped_rows import grouped, images
from PIL import Image
from run_helpers import SeenLosses, cut_and_resumed, label_phase, same, train, weights

from dnreid_plugins.engine.bad_batch import load_bad_batch, replay
from dnreid_plugins.engine.step import NonFiniteLossError
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.labels import Identities, Labels


@pytest.fixture
def cfg(tiny_cfg: CfgNode) -> CfgNode:
    tiny_cfg.LABELS.SOURCE = "Identities"
    tiny_cfg.MODEL.LOSSES.NAME = ("ClusterNCE", "TripletLoss")
    tiny_cfg.SOLVER.CHECKPOINT_KEEP = 20
    return tiny_cfg


def test_clusters_are_the_identities_of_each_domain_and_of_both() -> None:
    ids = [7, 7, 30, 9, 30, 9, 9, 7]
    domains = torch.tensor([0, 0, 0, 0, 1, 1, 1, 0])
    rows = grouped(8, 0)
    epoch = Labels(Identities())(rows, images(domains, ids), number=1, last=2)
    assert list(epoch.clusters) == ["day", "night", "joint"]
    assert epoch.day.labels.tolist() == [0, 0, 2, 1, 0] and epoch.day.indices.tolist() == [0, 1, 2, 3, 7]
    assert epoch.night.labels.tolist() == [1, 0, 0] and epoch.night.indices.tolist() == [4, 5, 6]
    assert epoch.clusters["joint"].labels.tolist() == [0, 0, 2, 1, 2, 1, 1, 0]
    mean = torch.nn.functional.normalize(rows[[2, 4]].mean(dim=0), dim=0)
    torch.testing.assert_close(epoch.clusters["joint"].centroids[2], mean)
    assert epoch.targets("joint", torch.tensor([4, 0])).tolist() == [2, 0]


def test_images_without_identities_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"LABELS\.SOURCE is 'Identities', but a training image has no identity"
    ):
        Labels(Identities())(grouped(4, 0), images(torch.tensor([0, 0, 1, 1])), number=1, last=2)


def test_a_data_set_without_identities_is_refused_before_an_image_is_read(
    cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("day", "night"):
        (tmp_path / "crops" / name).mkdir(parents=True)
        for number in range(20):
            Image.fromarray(np.full((8, 8, 3), number, dtype=np.uint8)).save(
                tmp_path / "crops" / name / f"{number}.png"
            )
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "crops"))
    monkeypatch.setattr(
        "dnreid_plugins.data.dataset.read_image", lambda path: pytest.fail("an image was read")
    )
    cfg.DATASETS.NAMES, cfg.DATASETS.TESTS = ("DayNightFolder",), ()
    with pytest.raises(ValueError, match=r"LABELS\.SOURCE is 'Identities'"):
        CrossDomainTrainer(cfg).train()


def test_a_supervised_run_trains_on_the_true_identities_with_a_dual_stream(cfg: CfgNode) -> None:
    """With fast-reid's own triplet loss in the same tuple, over the identities of both domains."""
    cfg.MODEL.LOSSES.TRI.MARGIN, cfg.SOLVER.MAX_EPOCH, cfg.TEST.EVAL_PERIOD = 9.0, 4, 4
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    before = {key: p.detach().clone() for key, p in trainer.bare_model.named_parameters()}
    trainer.register_hooks([seen])
    trainer.resume_or_load()
    trainer.train()
    assert set(seen.losses[0]) == {"loss_clusternce", "loss_tripletloss"}
    assert all(0 < float(value) < 100 for losses in seen.losses for value in losses.values())
    after = dict(trainer.bare_model.named_parameters())
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    for stream in ("day", "night"):
        assert any("conv1" in key and f".{stream}." in key for key in moved)
    phase = label_phase(trainer)
    ids = torch.from_numpy(np.asarray(phase.images.true_ids))
    targets = trainer.step_trainer.pseudo_labels
    assert targets is not None and len(targets) == 72
    for domain in (0, 1):
        own = phase.images.domains == domain
        assert torch.equal(targets[own], torch.unique(ids[own], return_inverse=True)[1])
    rows = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "health.jsonl").read_text().splitlines()]
    assert [row["day/clusters"] for row in rows] == [6.0] * 4
    assert all(row["true/night/ARI"] == pytest.approx(1.0) for row in rows)
    results = json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())
    for direction in ("D2N", "N2D"):
        assert results["DN348"][direction]["mAP"] > 0


def test_the_triplets_are_of_the_joint_identities(cfg: CfgNode) -> None:
    seen: list[torch.Tensor] = []
    trainer = CrossDomainTrainer(cfg)
    head = trainer.bare_model.parts.losses["TripletLoss"]
    function = head.function

    def looking(features: torch.Tensor, targets: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append(targets)
        return function(features, targets, **options)

    head.function = looking
    trainer.train()
    ids = torch.from_numpy(np.asarray(label_phase(trainer).images.true_ids))
    last = trainer.bare_model.last_batch
    assert len(seen) == 8 and torch.equal(seen[-1], torch.unique(ids, return_inverse=True)[1][last.indices])
    shared = set(seen[-1][last.domains == 0].tolist()) & set(seen[-1][last.domains == 1].tolist())
    assert shared, "no identity was in both domains of the batch"


@pytest.mark.parametrize("iteration", [2, 4, 6])
def test_a_supervised_run_resumes(cfg: CfgNode, iteration: int) -> None:
    whole = weights(train(cfg))
    assert whole["parts.memory.own_joint"].shape[0] == 6
    cfg.OUTPUT_DIR += "-cut"
    assert same(weights(cut_and_resumed(cfg, iteration)), whole)


def test_weights_of_a_supervised_run_start_an_unsupervised_one(cfg: CfgNode) -> None:
    train(cfg)
    cfg.MODEL.WEIGHTS = str(Path(cfg.OUTPUT_DIR) / "model_final.pth")
    cfg.OUTPUT_DIR += "-second"
    cfg.LABELS.SOURCE = "DomainClusters"
    trainer = train(cfg)
    assert "parts.memory.own_joint" not in weights(trainer)


def test_a_bad_batch_of_a_supervised_run_replays(cfg: CfgNode) -> None:
    trainer, seen = CrossDomainTrainer(cfg), SeenLosses()
    trainer.register_hooks([seen])
    head = trainer.bare_model.parts.losses["ClusterNCE"]
    forward = head.forward
    head.forward = lambda *args: forward(*args) * (float("nan") if trainer.iter == 6 else 1.0)
    with pytest.raises(NonFiniteLossError, match="loss_clusternce is nan at iteration 6"):
        trainer.train()
    reports = {one.name: one.loss for one in replay(load_bad_batch([Path(cfg.OUTPUT_DIR) / "bad_batch.pt"]))}
    assert reports["loss_tripletloss"] == seen.losses[-1]["loss_tripletloss"].item()
