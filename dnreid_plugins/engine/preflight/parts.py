"""Checks of a method's parts, labels and stages before the first epoch; see `preflight`."""

from __future__ import annotations

import logging

from fastreid.config import CfgNode
from fastreid.modeling.heads import REID_HEADS_REGISTRY

from ...labels import build_labels
from ...modeling.blocks import BLOCK_REGISTRY
from ...modeling.meta_arch import build_parts
from ...modeling.parts import Parts
from ...modeling.teachers import TeacherOptions
from ...runtime.sections import construct
from ..stages import STAGE_REGISTRY
from .model import losses_objection, needs_clusters

logger = logging.getLogger(__name__)


def parts_objection(cfg: CfgNode) -> str | None:
    """Parts, label source and refiners check their own sections when they are built, and building them is cheap."""
    if not needs_clusters(cfg) or losses_objection(cfg) is not None:
        return None
    try:
        parts = build_parts(cfg)
        labels = build_labels(cfg)
        construct(TeacherOptions, cfg)
        for stage in parts.stages():
            STAGE_REGISTRY.get(stage).check(cfg)
    except ValueError as error:
        return str(error)
    if text := _unmade_clusters(parts, labels.makes()) or _missing_tensors(cfg, parts):
        return text
    for name, head in parts.heads():
        # A run that was shortened for a try is no mistake, but nobody should take it for the whole method.
        if head.first_epoch > cfg.SOLVER.MAX_EPOCH:
            text = (
                "The loss %s begins at epoch %d, after the last one: with SOLVER.MAX_EPOCH %d it never acts."
            )
            logger.warning(text, name, head.first_epoch, cfg.SOLVER.MAX_EPOCH)
    if cfg.CLUSTER.FEATURE == "before" and cfg.MODEL.HEADS.EMBEDDING_DIM > 0:
        return (
            f"CLUSTER.FEATURE is 'before' with MODEL.HEADS.EMBEDDING_DIM {cfg.MODEL.HEADS.EMBEDDING_DIM}: prototypes "
            "and neck features would differ in length; set it 'after'."
        )
    return None


def _unmade_clusters(parts: Parts, made: set[str]) -> str | None:
    for part in parts.modules():
        missing = [name for name in getattr(part, "reads", ()) if name not in made]
        if missing:
            return (
                f"{type(part).__name__} reads the clusters {missing[0]!r}, but the labels have {sorted(made)}; choose "
                "a LABELS.SOURCE or LABELS.REFINERS that makes them."
            )
    return None


def _missing_tensors(cfg: CfgNode, parts: Parts) -> str | None:
    """What blocks of the encoder read from the parts, and what the parts read from the encoder."""
    blocks = {
        name: BLOCK_REGISTRY._obj_map[name]
        for name in cfg.MODEL.BLOCKS.NAME
        if name in BLOCK_REGISTRY._obj_map
    }
    offered = set(parts.for_encoder())
    for name, block in blocks.items():
        if missing := [key for key in block.reads if key not in offered]:
            return (
                f"{name} reads the {missing[0]} of a loss head, but none of {list(cfg.MODEL.LOSSES.NAME)} has one; add"
                " such a head to MODEL.LOSSES.NAME or take the block out of MODEL.BLOCKS.NAME."
            )
    made = {*getattr(REID_HEADS_REGISTRY._obj_map.get(cfg.MODEL.HEADS.NAME), "extras", ())}
    made |= {key for block in blocks.values() for key in block.gives}
    for part in parts.modules():
        if missing := [key for key in getattr(part, "needs", ()) if key not in made]:
            return (
                f"{type(part).__name__} needs the encoder's output {missing[0]!r}, which neither MODEL.HEADS.NAME nor "
                "a block of MODEL.BLOCKS.NAME gives; add such a block or take the loss head out."
            )
    return None
