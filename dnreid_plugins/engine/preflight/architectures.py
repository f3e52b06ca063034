"""Checks of fast-reid's own architectures before the first epoch."""

from __future__ import annotations

import os
from collections.abc import Callable

from fastreid.config import CfgNode
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY

from ...patches.distiller import Distiller

Check = Callable[[CfgNode], str | None]


def _mgn(cfg: CfgNode) -> str | None:
    if cfg.MODEL.META_ARCHITECTURE != "MGN":
        return None
    backbone = cfg.MODEL.BACKBONE
    if backbone.NAME != "build_resnet_backbone" or backbone.DEPTH not in ("50x", "101x"):
        return f"MGN needs ResNet 50x or 101x, not {backbone.NAME} {backbone.DEPTH}; change MODEL.BACKBONE."
    if backbone.WITH_NL:
        return "MODEL.BACKBONE.WITH_NL is True, but MGN drops the non-local blocks; set it False."
    rows = max(-(-cfg.INPUT.SIZE_TRAIN[0] // 16), 1)
    if -(-rows // -(-rows // 3)) != 3:
        return (
            f"INPUT.SIZE_TRAIN {list(cfg.INPUT.SIZE_TRAIN)} gives MGN {rows} feature rows, which cannot be cut into "
            f"three stripes; use a height of 80 or more (384 in the paper)."
        )
    return None


def _moco(cfg: CfgNode) -> str | None:
    if cfg.MODEL.META_ARCHITECTURE != "MoCo":
        return None
    if cfg.MODEL.QUEUE_SIZE % cfg.SOLVER.IMS_PER_BATCH:
        return (
            f"MODEL.QUEUE_SIZE {cfg.MODEL.QUEUE_SIZE} is not a multiple of SOLVER.IMS_PER_BATCH "
            f"{cfg.SOLVER.IMS_PER_BATCH}; make it one."
        )
    if cfg.MODEL.HEADS.EMBEDDING_DIM > 0 and cfg.MODEL.HEADS.NECK_FEAT != "after":
        return "MoCo with MODEL.HEADS.EMBEDDING_DIM above 0 needs MODEL.HEADS.NECK_FEAT after."
    return None


def _distiller(cfg: CfgNode) -> str | None:
    architecture = META_ARCH_REGISTRY._obj_map.get(cfg.MODEL.META_ARCHITECTURE)
    if not (isinstance(architecture, type) and issubclass(architecture, Distiller)):
        return None
    configs, weights = cfg.KD.MODEL_CONFIG, cfg.KD.MODEL_WEIGHTS
    if len(configs) != len(weights):
        return f"KD.MODEL_CONFIG names {len(configs)} teachers and KD.MODEL_WEIGHTS {len(weights)}; name as many."
    if not configs and not cfg.KD.EMA.ENABLED:
        return (
            "Distiller has no teacher; give KD.MODEL_CONFIG and KD.MODEL_WEIGHTS or set KD.EMA.ENABLED True."
        )
    missing = [path for path in (*configs, *weights) if not os.path.isfile(path)]
    return f"KD names {missing[0]}, which does not exist; correct the path." if missing else None


ARCHITECTURE_CHECKS: tuple[Check, ...] = (_mgn, _moco, _distiller)
