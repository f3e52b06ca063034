"""Any registered backbone, with weights loaded from a file completely or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastreid.layers import Non_local
from fastreid.modeling.backbones import BACKBONE_REGISTRY
from torch import nn

from ..runtime.sections import Share, configured, construct
from .blocks import widen_non_local
from .pretrained import load_backbone_weights

# Weights that ship with the package, by their name in MODEL.BACKBONE.PRETRAIN_PATH.
SHIPPED = Path(__file__).resolve().parents[1] / "dnmini" / "weights"
SHIPPED_PREFIX = "shipped:"


def build_backbone(cfg: Any) -> nn.Module:
    """The backbone of ``MODEL.BACKBONE.NAME``; with ``PRETRAIN`` its weights come from ``PRETRAIN_PATH``.

    ``PRETRAIN_PATH`` is a file in any wrapping, or ``shipped:<name>`` for weights that come with the package.
    Non-local blocks get the width of ``NL_WIDTH`` before weights are loaded.

    Raises:
        ValueError: name or depth is unknown, or ``PRETRAIN`` is True without a path.
        WeightFileError: the file cannot be read or does not fit.
    """
    backbone = cfg.MODEL.BACKBONE
    known = sorted(BACKBONE_REGISTRY._obj_map)
    if backbone.NAME not in known:
        raise ValueError(f"MODEL.BACKBONE.NAME is {backbone.NAME!r}; known backbones: {known}.")
    builder = BACKBONE_REGISTRY.get(backbone.NAME)
    if not backbone.PRETRAIN or hasattr(builder, "objection"):  # such a builder loads its weights itself
        return _build(builder, cfg)
    if not backbone.PRETRAIN_PATH:
        raise ValueError(
            "MODEL.BACKBONE.PRETRAIN is True but PRETRAIN_PATH is empty, and nothing is downloaded; name a weight "
            "file there or set PRETRAIN to False."
        )
    path = weight_path(backbone.PRETRAIN_PATH)
    bare = cfg.clone()
    bare.defrost()
    bare.MODEL.BACKBONE.PRETRAIN = False
    model = _build(builder, bare)
    load_backbone_weights(model, path)
    return model


def _build(builder: Callable[[Any], nn.Module], cfg: Any) -> nn.Module:
    depth = cfg.MODEL.BACKBONE.DEPTH
    try:
        model = builder(cfg)
    except KeyError as error:
        if error.args != (depth,):
            raise
        raise ValueError(
            f"MODEL.BACKBONE.DEPTH is {depth!r}, which {cfg.MODEL.BACKBONE.NAME} does not have; see fast-reid's model "
            "zoo for its sizes."
        ) from None
    construct(NonLocalWidth, cfg).apply(model)
    return model


@configured("MODEL.BACKBONE")
class NonLocalWidth:
    """The width of fast-reid's non-local blocks, which have a single channel inside (``reduc_ratio // reduc_ratio``).

    Args:
        nl_width: Channels inside a non-local block (WITH_NL) as a share of those it works on, 0.5 in its paper; 0 = a
            single one, as fast-reid and the released systems have it.
    """

    def __init__(self, *, nl_width: Share = 0.0) -> None:
        self.share = nl_width

    def apply(self, model: nn.Module) -> None:
        """Widen every block of ``model``, with new weights."""
        for block in model.modules():
            if isinstance(block, Non_local):
                widen_non_local(block, self.share)


def weight_path(name: str) -> Path:
    """The file that ``MODEL.BACKBONE.PRETRAIN_PATH`` names."""
    if not name.startswith(SHIPPED_PREFIX):
        return Path(name).expanduser()
    path = SHIPPED / f"{name.removeprefix(SHIPPED_PREFIX)}.safetensors"
    if not path.is_file():
        raise ValueError(
            f"MODEL.BACKBONE.PRETRAIN_PATH is {name!r}; the package ships "
            f"{sorted(SHIPPED_PREFIX + p.stem for p in SHIPPED.glob('*.safetensors'))}."
        )
    return path
