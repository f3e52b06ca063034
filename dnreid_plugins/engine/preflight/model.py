"""Checks of the model's keys before the first epoch; see `preflight`."""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Sequence

import torch
from fastreid.config import CfgNode
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.layers import any_softmax, pooling
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY

from ...config import objections
from ...modeling.backbone import build_backbone, weight_path
from ...modeling.blocks import build_blocks
from ...modeling.dual_stream import DualStream
from ...modeling.loss_heads import LOSS_HEAD_REGISTRY
from ...runtime.config_files import nearest
from .architectures import ARCHITECTURE_CHECKS, Check

NORMS = ("BN", "syncBN", "GhostBN", "FrozenBN", "GN")


FASTREID_LOSSES = {
    "Baseline": ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface"),
    "Distiller": ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface"),
    "MoCo": ("CrossEntropyLoss", "TripletLoss", "CircleLoss", "Cosface"),
    "MGN": ("CrossEntropyLoss", "TripletLoss"),
}


def _device(cfg: CfgNode) -> str | None:
    try:
        device = torch.device(cfg.MODEL.DEVICE)
    except RuntimeError:
        return f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}; it must be 'cpu', 'cuda' or 'cuda:<number>'."
    if device.type not in ("cpu", "cuda"):
        return f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but only CPU and CUDA are supported; set MODEL.DEVICE cpu."
    if device.type == "cuda" and not torch.cuda.is_available():
        return f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r} but PyTorch finds no CUDA device; set MODEL.DEVICE cpu."
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        return f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r} but there are {torch.cuda.device_count()} CUDA devices."
    return None


def _names(cfg: CfgNode) -> str | None:
    """Check registered names; for an unknown one fast-reid raises a KeyError deep in its code."""
    wanted = [
        ("MODEL.META_ARCHITECTURE", [cfg.MODEL.META_ARCHITECTURE], META_ARCH_REGISTRY._obj_map),
        ("MODEL.BACKBONE.NAME", [cfg.MODEL.BACKBONE.NAME], BACKBONE_REGISTRY._obj_map),
        ("MODEL.BACKBONE.NORM", [cfg.MODEL.BACKBONE.NORM], NORMS),
        ("MODEL.HEADS.NORM", [cfg.MODEL.HEADS.NORM], NORMS),
        ("MODEL.HEADS.NAME", [cfg.MODEL.HEADS.NAME], REID_HEADS_REGISTRY._obj_map),
        ("MODEL.HEADS.POOL_LAYER", [cfg.MODEL.HEADS.POOL_LAYER], pooling.__all__),
        ("MODEL.HEADS.CLS_LAYER", [cfg.MODEL.HEADS.CLS_LAYER], any_softmax.__all__),
        ("DATASETS.NAMES", cfg.DATASETS.NAMES, DATASET_REGISTRY._obj_map),
        ("DATASETS.TESTS", cfg.DATASETS.TESTS, DATASET_REGISTRY._obj_map),
    ]
    for key, names, known in wanted:
        for name in names:
            if name not in known:
                return unknown_name(key, name, sorted(known))
    return None


def unknown_name(key: str, name: str, known: Sequence[str]) -> str:
    guess = nearest(str(name), known)
    hint = f"did you mean {guess!r}? " if guess else ""
    return f"{key} has {name!r}, which is not known; {hint}known are {', '.join(known)}."


def losses_objection(cfg: CfgNode) -> str | None:
    """fast-reid trains on without a loss whose name it does not know."""
    arch = cfg.MODEL.META_ARCHITECTURE
    names = tuple(cfg.MODEL.LOSSES.NAME)
    known = sorted(LOSS_HEAD_REGISTRY._obj_map) if needs_clusters(cfg) else FASTREID_LOSSES.get(arch)
    if known is None:
        return None
    if not names:
        return f"MODEL.LOSSES.NAME is empty; {arch} knows {', '.join(known)}."
    wrong = [name for name in names if name not in known]
    return unknown_name(f"MODEL.LOSSES.NAME for {arch}", wrong[0], known) if wrong else None


def needs_clusters(cfg: CfgNode) -> bool:
    arch = META_ARCH_REGISTRY._obj_map.get(cfg.MODEL.META_ARCHITECTURE)
    return bool(getattr(arch, "needs_clusters", False))


def _pretrained(cfg: CfgNode) -> str | None:
    backbone = cfg.MODEL.BACKBONE
    own = getattr(BACKBONE_REGISTRY._obj_map.get(backbone.NAME), "objection", None)
    if own is not None:
        try:
            return own(cfg)
        except (ValueError, OSError) as error:
            return str(error)
    if not backbone.PRETRAIN or not _is_fastreids(backbone.NAME):
        return None
    if not backbone.PRETRAIN_PATH:
        return (
            "MODEL.BACKBONE.PRETRAIN is True and PRETRAIN_PATH is empty; nothing is downloaded automatically, so give "
            "the path of a weight file or set PRETRAIN False."
        )
    try:
        path = weight_path(backbone.PRETRAIN_PATH)
    except ValueError as error:
        return str(error)
    return (
        None
        if os.path.isfile(path)
        else f"MODEL.BACKBONE.PRETRAIN_PATH {path} does not exist; correct the path."
    )


def _is_fastreids(builder: str) -> bool:
    known = BACKBONE_REGISTRY._obj_map.get(builder)
    return known is not None and known.__module__.startswith("fastreid.")


def _weights(cfg: CfgNode) -> str | None:
    path = cfg.MODEL.WEIGHTS
    return (
        f"MODEL.WEIGHTS {path} does not exist; correct the path."
        if path and not os.path.isfile(path)
        else None
    )


def _backbone_switches(cfg: CfgNode) -> str | None:
    """A switch that the builder's module never reads would have no effect."""
    backbone = cfg.MODEL.BACKBONE
    if backbone.NL_WIDTH and not backbone.WITH_NL:
        return (
            f"MODEL.BACKBONE.NL_WIDTH is {backbone.NL_WIDTH!r}, but WITH_NL is False, so there are no non-local "
            "blocks; set it to 0 or WITH_NL True."
        )
    if not _is_fastreids(backbone.NAME):
        return None
    module = inspect.getmodule(BACKBONE_REGISTRY.get(backbone.NAME))
    read = set(re.findall(r"cfg\.MODEL\.BACKBONE\.(\w+)", inspect.getsource(module))) if module else set()
    neutral = {"LAST_STRIDE": 1, "WITH_IBN": False, "WITH_SE": False, "WITH_NL": False}
    for key, value in neutral.items():
        if backbone[key] != value and key not in read:
            return (
                f"MODEL.BACKBONE.{key} is {backbone[key]}, which {backbone.NAME} ignores; set it to {value} or "
                f"choose a backbone that has it, such as build_resnet_backbone."
            )
    if backbone.WITH_NL and backbone.NAME == "build_resnet_backbone" and backbone.DEPTH in ("18x", "34x"):
        return (
            f"MODEL.BACKBONE.WITH_NL is True, but ResNet {backbone.DEPTH} has no place for non-local blocks; set it "
            f"False or choose DEPTH 50x."
        )
    return None


def _has_a_map(backbone: str) -> bool:
    """Transformers give one vector per image, everything else a map."""
    return backbone != "build_vit_backbone" and not hasattr(
        BACKBONE_REGISTRY._obj_map.get(backbone), "objection"
    )


def _heads(cfg: CfgNode) -> str | None:
    heads, backbone = cfg.MODEL.HEADS, cfg.MODEL.BACKBONE.NAME
    if heads.POOL_LAYER == "Identity" and _has_a_map(backbone):
        return (
            f"MODEL.HEADS.POOL_LAYER is 'Identity', with which only the top-left cell of {backbone}'s map would be "
            f"used; choose GlobalAvgPool or GeneralizedMeanPooling."
        )
    if heads.NECK_FEAT not in ("before", "after"):
        return f"MODEL.HEADS.NECK_FEAT is {heads.NECK_FEAT!r}; it must be 'before' or 'after'."
    if heads.WITH_BNNECK and heads.NORM == "FrozenBN":
        return "MODEL.HEADS.NORM FrozenBN cannot be used with WITH_BNNECK True; choose BN."
    return None


def _image_size(cfg: CfgNode) -> str | None:
    for key in ("SIZE_TRAIN", "SIZE_TEST"):
        size = list(cfg.INPUT[key])
        if size != [0] and (len(size) not in (1, 2) or any(type(n) is not int or n < 1 for n in size)):
            return (
                f"INPUT.{key} is {size}; it must be [height, width] in pixels, or [0] for the original size."
            )
    train, test = list(cfg.INPUT.SIZE_TRAIN), list(cfg.INPUT.SIZE_TEST)
    if train == [0]:
        if cfg.INPUT.PADDING.ENABLED:
            return (
                "INPUT.SIZE_TRAIN is [0], so INPUT.PADDING has no size to crop to; set PADDING.ENABLED False."
            )
        if needs_clusters(cfg) or cfg.MODEL.BACKBONE.NAME == "build_clip_vit_backbone":
            return (
                f"INPUT.SIZE_TRAIN is [0] (original size), but {cfg.MODEL.META_ARCHITECTURE} with "
                f"{cfg.MODEL.BACKBONE.NAME} is built for one size; give [height, width]."
            )
    if cfg.MODEL.BACKBONE.NAME == "build_vit_backbone" and (train != test or len(train) != 2):
        return (
            f"INPUT.SIZE_TRAIN {train} and SIZE_TEST {test} must be the same [height, width] for "
            f"build_vit_backbone, whose position embedding has one size."
        )
    return None


def _pixels(cfg: CfgNode) -> str | None:
    for key, lowest in (("PIXEL_MEAN", -math.inf), ("PIXEL_STD", 0.0)):
        values = cfg.MODEL[key]
        if len(values) != 3 or not all(isinstance(v, (int, float)) and lowest < v < math.inf for v in values):
            kind = "numbers above 0" if lowest == 0 else "numbers"
            return f"MODEL.{key} is {list(values)}; it must be three {kind}, one per channel, for values 0 to 255."
    return None


def _dual_stream(cfg: CfgNode) -> str | None:
    """The backbone alone, without weights, says which parts it has."""
    if not needs_clusters(cfg) or not (cfg.MODEL.DUAL_STREAM.MODULES or cfg.MODEL.BLOCKS.NAME):
        return None
    bare = cfg.clone()
    bare.defrost()
    bare.MODEL.BACKBONE.PRETRAIN = False
    try:
        backbone = build_backbone(bare)
        DualStream(backbone, cfg.MODEL.DUAL_STREAM.MODULES, blocks=build_blocks(bare, backbone))
    except ValueError as error:
        return str(error)
    return None


def _own_keys(cfg: CfgNode) -> str | None:
    return "\n".join(objections(cfg)) or None


MODEL_CHECKS: tuple[Check, ...] = (
    _own_keys,
    _device,
    _names,
    _weights,
    _backbone_switches,
    _heads,
    _image_size,
    _pixels,
)
MODEL_TRAINING_CHECKS: tuple[Check, ...] = (losses_objection, _pretrained, *ARCHITECTURE_CHECKS, _dual_stream)
