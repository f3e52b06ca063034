from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.modeling.meta_arch import Baseline
from fastreid.utils.events import EventStorage
from run_helpers import resumed

from dnreid_plugins.engine.checkpoint_files import AtomicCheckpointer
from dnreid_plugins.patches.distiller import Distiller
from dnreid_plugins.runtime.weight_files import WeightFileError


@pytest.fixture
def cfg() -> CfgNode:
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.BACKBONE.NAME = "build_tiny_backbone"
    cfg.MODEL.BACKBONE.FEAT_DIM = 16
    cfg.MODEL.HEADS.NUM_CLASSES = 3
    cfg.MODEL.HEADS.WITH_BNNECK = True
    cfg.KD.EMA.ENABLED = True
    cfg.KD.EMA.MOMENTUM = 0.5
    return cfg


def batch() -> dict[str, Any]:
    return {"images": 255 * torch.rand(6, 3, 16, 16), "targets": torch.tensor([0, 0, 1, 1, 2, 2])}


def step(model: Distiller, optimizer: torch.optim.Optimizer | None = None) -> dict[str, torch.Tensor]:
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    with EventStorage():
        losses = model(batch())
    optimizer.zero_grad()
    sum(losses.values()).backward()  # type: ignore[union-attr]
    optimizer.step()
    return losses


def test_the_ema_teacher_starts_as_the_student_and_follows_it(cfg: CfgNode) -> None:
    model = Distiller(cfg)
    teacher = model.model_ts[0]
    assert all(torch.equal(p, model.get_parameter(n)) for n, p in teacher.named_parameters())
    step(model)
    before = {n: p.clone() for n, p in teacher.named_parameters()}
    student = {n: p.detach().clone() for n, p in model.named_parameters()}
    losses = step(model)
    assert float(losses["loss_jsdiv"]) > 0
    for name, value in teacher.named_parameters():
        torch.testing.assert_close(value, 0.5 * before[name] + 0.5 * student[name])
        assert not value.requires_grad


def test_the_ema_teacher_is_in_the_checkpoint(cfg: CfgNode, tmp_path: Path) -> None:
    model = Distiller(cfg)
    for _ in range(2):
        step(model)
    AtomicCheckpointer(model, str(tmp_path)).save("model_0000")
    fresh = Distiller(cfg)
    resumed(AtomicCheckpointer(fresh, str(tmp_path)))
    old, new = model.model_ts[0].state_dict(), fresh.model_ts[0].state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[key], new[key]) for key in old)
    assert not torch.equal(old["backbone.conv1.weight"], fresh.backbone.conv1.weight)
    fresh.load_state_dict(model.state_dict())


def test_teachers_keep_still(cfg: CfgNode, tmp_path: Path) -> None:
    cfg.KD.EMA.ENABLED = False
    teacher = Baseline(cfg)
    torch.save({"model": teacher.state_dict()}, tmp_path / "t.pth")
    (tmp_path / "t.yml").write_text(
        "MODEL: {BACKBONE: {NAME: build_tiny_backbone, FEAT_DIM: 16}, HEADS: {WITH_BNNECK: True}, DEVICE: cuda}\n"
    )
    cfg.KD.MODEL_CONFIG, cfg.KD.MODEL_WEIGHTS = [str(tmp_path / "t.yml")], [str(tmp_path / "t.pth")]
    model = Distiller(cfg)
    before = {key: value.clone() for key, value in model.model_ts[0].state_dict().items()}
    for _ in range(2):
        model.eval()
        model.train()
        step(model)
    after = model.model_ts[0].state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not any(key.startswith("ema_teacher") for key in model.state_dict())
    assert len(list(model.parameters())) == len(list(teacher.parameters()))


def test_a_teacher_whose_file_does_not_fit_is_refused(cfg: CfgNode, tmp_path: Path) -> None:
    torch.save({"model": {"x": torch.zeros(1)}}, tmp_path / "t.pth")
    (tmp_path / "t.yml").write_text("MODEL: {BACKBONE: {NAME: build_tiny_backbone, FEAT_DIM: 16}}\n")
    cfg.KD.MODEL_CONFIG, cfg.KD.MODEL_WEIGHTS = [str(tmp_path / "t.yml")], [str(tmp_path / "t.pth")]
    with pytest.raises(WeightFileError, match="does not fit the backbone"):
        Distiller(cfg)


def test_teachers_move_with_the_student(cfg: CfgNode) -> None:
    model = Distiller(cfg).to(torch.float64)
    assert all(p.dtype == torch.float64 for p in model.model_ts[0].parameters())


def test_in_eval_mode_it_is_the_plain_encoder(cfg: CfgNode) -> None:
    model = Distiller(cfg).eval()
    images = 255 * torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(model({"images": images}), model({"images": images}))
    assert model({"images": images}).shape == (2, 16)
