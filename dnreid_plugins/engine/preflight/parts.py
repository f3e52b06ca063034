"""Checks of a method's parts, labels and stages before the first epoch; see `preflight`."""

from __future__ import annotations

import logging
from typing import get_args

from fastreid.config import CfgNode
from fastreid.modeling.heads import REID_HEADS_REGISTRY
from fastreid.utils import comm

from ...functional.types import StreamName
from ...labels import Labels, build_labels
from ...modeling.blocks import BLOCK_REGISTRY
from ...modeling.loss_heads import LossHead
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
    text = _unmade_clusters(parts, labels, cfg.SOLVER.MAX_EPOCH)
    if text := text or _streams(cfg, parts, labels) or _missing_tensors(cfg, parts):
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


def _unmade_clusters(parts: Parts, labels: Labels, last: int) -> str | None:
    """Each active part must find its clusters in every epoch up to the ``last`` one."""
    for number in range(1, max(last, 1) + 1):
        made = labels.makes(number)
        active = (
            part for _, part in parts.named() if not isinstance(part, LossHead) or part.matches_in(number)
        )
        for part in (one for top in active for one in top.modules()):
            missing = [name for name in getattr(part, "reads", ()) if name not in made]
            if missing:
                when = "" if number == 1 else f" in epoch {number}"
                others = ", or others in CLUSTERS" if hasattr(part, "clusters") else ""
                return (
                    f"{type(part).__name__} reads the clusters {missing[0]!r}{when}, but the labels have "
                    f"{sorted(made)}; choose a LABELS.SOURCE or LABELS.REFINERS that makes them{others}."
                )
    return None


def _streams(cfg: CfgNode, parts: Parts, labels: Labels) -> str | None:
    """Every stream has a head and clusters, every head its stream."""
    streams, known = tuple(cfg.DATALOADER.STREAMS), get_args(StreamName)
    if not streams or len(set(streams)) != len(streams) or not set(streams) <= set(known):
        return f"DATALOADER.STREAMS is {streams!r}; it names at least one of {known}, each once."
    heads = dict(parts.heads())
    for name, head in heads.items():
        if head.stream not in streams:
            return (
                f"{name} is a loss of the batches {head.stream!r}, but DATALOADER.STREAMS is {streams!r}; add "
                "them, or leave the loss out."
            )
    made = {name for number in range(1, cfg.SOLVER.MAX_EPOCH + 1) for name in labels.makes(number)}
    for stream in streams:
        if not any(head.stream == stream for head in heads.values()):
            return (
                f"DATALOADER.STREAMS has {stream!r}, of which no loss of MODEL.LOSSES.NAME is; leave it out."
            )
        if stream != "domains" and "joint" not in made:
            return (
                f"DATALOADER.STREAMS has {stream!r}, but the labels have no clusters 'joint'; choose a "
                "LABELS.SOURCE or LABELS.REFINERS that makes them."
            )
    if "union" in streams and cfg.MODEL.DUAL_STREAM.MODULES and comm.get_world_size() > 1:
        return (
            "DATALOADER.STREAMS has 'union', whose batches have any number of day images, which several processes "
            "cannot pass through MODEL.DUAL_STREAM.MODULES; use one process, or an encoder without two streams."
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
