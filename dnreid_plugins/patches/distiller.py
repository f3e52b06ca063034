"""fast-reid's Distiller with fixed teachers and an EMA teacher that is saved in checkpoints."""

from __future__ import annotations

import copy
from typing import Any

import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.modeling.meta_arch import Baseline, build_model
from fastreid.modeling.meta_arch.distiller import Distiller as FastreidDistiller
from torch import Tensor, nn

from ..modeling.pretrained import load_backbone_weights

BATCH_NORM = nn.modules.batchnorm._BatchNorm
EMA_PREFIX = "ema_teacher."


class Distiller(FastreidDistiller):
    """Knowledge distillation; replaces fast-reid's class of this name.

    Differences: batch norm of every teacher uses its running statistics; teachers live on the student's
    device; a teacher's weight file fits completely or is refused; the EMA teacher follows the student's
    statistics too and is part of ``state_dict`` (under ``ema_teacher.``), so that a resume continues with it.
    The fixed teachers are not saved.
    """

    def __init__(self, cfg: CfgNode) -> None:
        Baseline.__init__(self, cfg)
        self.ema_enabled = cfg.KD.EMA.ENABLED
        self.ema_momentum = cfg.KD.EMA.MOMENTUM
        # A plain list: the teachers are not sub-modules, so `train()` and `parameters()` do not include them.
        self.model_ts: list[nn.Module] = []
        if self.ema_enabled:
            self.model_ts.append(_still(self._copy_of_student()))
        for config, weights in zip(cfg.KD.MODEL_CONFIG, cfg.KD.MODEL_WEIGHTS, strict=True):
            self.model_ts.append(_still(_build_teacher(cfg, config, weights)))
        if self.ema_enabled:
            self._register_state_dict_hook(_add_ema_teacher)
            self.register_load_state_dict_pre_hook(_take_ema_teacher)
            self.register_load_state_dict_post_hook(_forget_ema_keys)

    def _apply(self, fn: Any, recurse: bool = True) -> Distiller:
        """``.to(device)`` reaches the teachers as well."""
        super()._apply(fn, recurse)
        for teacher in self.model_ts:
            teacher._apply(fn, recurse)
        return self

    def _copy_of_student(self) -> nn.Module:
        teacher = Baseline.__new__(Baseline)
        nn.Module.__init__(teacher)
        teacher.backbone, teacher.heads = copy.deepcopy(self.backbone), copy.deepcopy(self.heads)
        return teacher

    @torch.no_grad()
    def _momentum_update_key_encoder(self, m: float = 0.999) -> None:
        """Move the EMA teacher's weights towards the student's; copy its batch-norm statistics."""
        own = dict(self.named_buffers())
        for name, parameter in self.model_ts[0].named_parameters():
            parameter.mul_(m).add_(self.get_parameter(name).detach(), alpha=1.0 - m)
        for name, buffer in self.model_ts[0].named_buffers():
            buffer.copy_(own[name])


def _still(teacher: nn.Module) -> nn.Module:
    """No gradients, running statistics; the heads stay in train mode because they return logits only there."""
    teacher.requires_grad_(False)
    for module in teacher.modules():
        if isinstance(module, BATCH_NORM):
            module.eval()
    return teacher


def _build_teacher(cfg: CfgNode, config: str, weights: str) -> nn.Module:
    teacher_cfg = get_cfg()
    teacher_cfg.merge_from_file(config)
    teacher_cfg.defrost()
    teacher_cfg.MODEL.META_ARCHITECTURE = "Baseline"
    teacher_cfg.MODEL.DEVICE = cfg.MODEL.DEVICE
    teacher_cfg.MODEL.BACKBONE.PRETRAIN = False
    if teacher_cfg.MODEL.HEADS.NUM_CLASSES == 0:
        teacher_cfg.MODEL.HEADS.NUM_CLASSES = cfg.MODEL.HEADS.NUM_CLASSES
    for section in (teacher_cfg.MODEL.BACKBONE, teacher_cfg.MODEL.HEADS):
        # Teachers are not wrapped for several processes, where syncBN would wait for the others.
        section.NORM = "BN" if section.NORM == "syncBN" else section.NORM
    teacher = build_model(teacher_cfg)
    load_backbone_weights(teacher, weights)
    return teacher


def _add_ema_teacher(module: Distiller, state: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name, value in module.model_ts[0].state_dict().items():
        state[f"{prefix}{EMA_PREFIX}{name}"] = value


def _take_ema_teacher(module: Distiller, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    start = f"{prefix}{EMA_PREFIX}"
    stored = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
    if stored:
        module.model_ts[0].load_state_dict(stored)


def _forget_ema_keys(module: Distiller, incompatible: Any) -> None:
    kept = [name for name in incompatible.unexpected_keys if EMA_PREFIX not in name]
    incompatible.unexpected_keys[:] = kept
