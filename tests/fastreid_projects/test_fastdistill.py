"""FastDistill: knowledge distillation, with Overhaul."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastreid.engine
import pytest
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY, Distiller
from torch import Tensor, nn

from dnreid_plugins.runtime.config_files import ConfigError


@META_ARCH_REGISTRY.register()
class MiniOverhaul(Distiller):
    """Feature maps of student and teacher side by side, with a connector and a margin per teacher."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__(cfg)
        for number in range(len(self.model_ts)):
            setattr(self, f"connector_{number}", nn.Conv2d(16, 16, 1))

    def forward(self, batched_inputs: dict[str, Any]) -> Any:
        if not self.training:
            return super().forward(batched_inputs)
        images = self.preprocess_image(batched_inputs)
        targets = batched_inputs["targets"].to(self.device)
        mine = self.backbone(images)
        if self.ema_enabled:
            self._momentum_update_key_encoder(self.ema_momentum)
        theirs = [teacher.backbone(images) for teacher in self.model_ts]
        logits = [
            teacher.heads(features, targets) for teacher, features in zip(self.model_ts, theirs, strict=True)
        ]
        losses = super().losses(self.heads(mine, targets), logits, targets)
        maps: list[Tensor] = [
            F.mse_loss(getattr(self, f"connector_{n}")(mine), t) for n, t in enumerate(theirs)
        ]
        losses["loss_overhaul"] = sum(maps) / len(maps)
        return losses


@pytest.fixture
def teacher(cfg: CfgNode, run: Any, tmp_path: Path) -> list[Any]:
    """Options that name a teacher trained a moment ago."""
    cfg = cfg.clone()
    cfg.OUTPUT_DIR = str(tmp_path / "teacher")
    cfg.MODEL.HEADS.NUM_CLASSES = 6
    run(fastreid.engine.DefaultTrainer, cfg)
    (tmp_path / "teacher" / "config.yaml").write_text(cfg.dump())
    config, weights = (str(tmp_path / "teacher" / name) for name in ("config.yaml", "model_final.pth"))
    return ["KD.MODEL_CONFIG", (config,), "KD.MODEL_WEIGHTS", (weights,)]


@pytest.mark.parametrize("architecture", ["Distiller", "MiniOverhaul"])
def test_a_student_learns_from_a_teacher(
    cfg: CfgNode, run: Any, teacher: list[Any], architecture: str
) -> None:
    """Runs: logits (`Distiller`) and feature maps (`DistillerOverhaul`) of teachers, also a student average."""
    cfg.merge_from_list([*teacher, "MODEL.META_ARCHITECTURE", architecture, "KD.EMA.ENABLED", True])
    assert run(fastreid.engine.DefaultTrainer, cfg)["DN348"]["D2N"]["mAP"] > 0


def test_a_class_on_top_of_distiller_has_teachers_that_keep_still(cfg: CfgNode, teacher: list[Any]) -> None:
    """Patched: `from fastreid.modeling.meta_arch import Distiller` gives the one whose teachers use running statistics
    and whose average is in the checkpoint; a missing teacher is refused before training."""
    cfg.merge_from_list([*teacher, "MODEL.META_ARCHITECTURE", "MiniOverhaul", "KD.EMA.ENABLED", True])
    trainer = fastreid.engine.DefaultTrainer(cfg)
    assert any(name.startswith("ema_teacher.") for name in trainer.bare_model.state_dict())
    for one in trainer.bare_model.model_ts:
        assert not any(m.training for m in one.modules() if isinstance(m, nn.BatchNorm2d))
    cfg.KD.MODEL_WEIGHTS = ("nowhere.pth",)
    with pytest.raises(ConfigError, match=r"nowhere\.pth, which does not exist"):
        fastreid.engine.DefaultTrainer(cfg)
