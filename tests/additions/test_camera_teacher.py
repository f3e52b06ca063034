"""Cameras and a teacher as an addition: rows per camera, an image against those of its own, the teacher evaluated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fastreid.config import CfgNode
from run_helpers import SeenLosses, cut_and_resumed, same, train, weights
from six_cameras import write_six_cameras

from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.functional.losses.contrast import cluster_nce

ADDITIONS = ("camera_teacher",)


@pytest.fixture(autouse=True)
def root(cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTREID_DATASETS", str(tmp_path / "data"))
    return write_six_cameras(tmp_path / "data")


def test_every_camera_has_rows_of_its_own_clusters(cfg: CfgNode) -> None:
    trainer = CrossDomainTrainer(cfg)
    trainer.resume_or_load()
    started: list[dict[str, torch.Tensor]] = []
    use_labels = trainer.use_labels
    trainer.use_labels = lambda epoch: (started.append(weights(trainer)), use_labels(epoch))  # type: ignore[method-assign]
    trainer.train()
    data, epoch = trainer.train_data, trainer.parts.epoch
    assert data is not None and epoch is not None
    assert list(epoch.clusters) == ["day", "night", *(f"camera_{n}" for n in range(6))]
    for camera in range(6):
        part = epoch.clusters[f"camera_{camera}"]
        assert torch.equal(part.indices, torch.nonzero(data.images.cams == camera).flatten())
        whole = epoch.targets("night" if camera in (2, 5) else "day", part.indices)
        assert torch.equal(part.labels < 0, whole < 0)
        # The same images are together, under the camera's own numbers.
        known = part.labels >= 0
        pairs = torch.stack([part.labels[known], whole[known]], dim=1).unique(dim=0)
        assert len(pairs) == part.num_clusters == int(whole[known].unique().numel())
        rows = f"parts.memory.own_camera_{camera}"
        assert torch.equal(started[-1][rows], part.centroids)
    moved = [name for name, old in started[-1].items() if "own_camera" in name]
    assert len(moved) == 6
    assert any(not torch.equal(weights(trainer)[name], started[-1][name]) for name in moved)


def test_the_loss_sees_an_images_own_camera_only(cfg: CfgNode) -> None:
    trainer = train(cfg)
    parts, batch = trainer.parts, trainer.bare_model.last_batch
    assert batch is not None and parts.epoch is not None and len(batch.cams.unique()) > 2
    loss = parts.losses["CameraContrast"](batch, parts)
    expected = []
    for camera in sorted(set(batch.cams.tolist())):
        own = batch.where(batch.cams == camera)
        name = f"camera_{camera}"
        targets = parts.epoch.targets(name, own.indices)
        expected.append(cluster_nce(own.unit, targets, parts.memory.rows(name), temperature=0.07))
    assert torch.allclose(loss, sum(expected) / len(expected)) and float(loss) > 0
    for camera in range(6):
        if camera not in batch.cams:
            continue
        parts.memory.set_rows(f"camera_{camera}", -parts.memory.cluster_rows(f"camera_{camera}"))
        assert not torch.allclose(parts.losses["CameraContrast"](batch, parts), loss)
        parts.memory.set_rows(f"camera_{camera}", -parts.memory.cluster_rows(f"camera_{camera}"))


def test_a_run_resumes_inside_an_epoch_bit_exactly(cfg: CfgNode) -> None:
    seen, whole = SeenLosses(), CrossDomainTrainer(cfg)
    whole.register_hooks([seen])
    whole.resume_or_load()
    whole.train()
    assert all(sorted(one) == ["loss_cameracontrast", "loss_clusternce"] for one in seen.losses)
    cfg.OUTPUT_DIR += "-cut"
    resumed = cut_and_resumed(cfg, 6)
    assert same(weights(resumed), weights(whole))
    assert resumed._last_eval_results == whole._last_eval_results


def test_the_teacher_is_evaluated(cfg: CfgNode) -> None:
    teacher = train(cfg)
    cfg.MODEL.TEACHER.EVALUATE = False
    cfg.OUTPUT_DIR += "-student"
    student = train(cfg)
    assert same(weights(student), weights(teacher))
    assert student._last_eval_results != teacher._last_eval_results


def test_a_bad_batch_replays(replays: Callable[[str, int], None]) -> None:
    replays("ClusterNCE", 6)
