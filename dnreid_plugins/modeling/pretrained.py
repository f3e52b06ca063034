"""Pre-trained weights for any backbone, from a file in any wrapping, loaded completely or not at all."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from ..runtime.weight_files import WeightFileError, read_weight_file, unwrap
from .clip.image_tower import resize_position_embedding

logger = logging.getLogger(__name__)

# Blocks that re-id adds to a classification backbone; a file made for classification cannot have them.
ADDED_BLOCKS = re.compile(r"(^|\.)(NL_\d+|se)\.")
MAX_PREFIX_PARTS = 3
_STREAM = re.compile(r"\.(day|night)\.")


def load_backbone_weights(backbone: nn.Module, path: str | Path) -> None:
    """Fill ``backbone`` from a ``.pth`` or ``.safetensors`` file; partial fits are refused.

    The file may be bare or wrapped (``model``, ``state_dict``, ``model_state`` ...), and all its names may
    carry a prefix (``module.``, ``backbone.``, ``module.features.`` ...): the one that fits best is removed. A
    position embedding of another image size is resized. Blocks in `ADDED_BLOCKS` may be missing as
    a whole; batch counters (``num_batches_tracked``) may always be missing.

    Raises:
        WeightFileError: the file cannot be read, or a tensor is missing or has another shape.
    """
    stored = unwrap(read_weight_file(path), path)
    wanted = {k: v for k, v in backbone.state_dict().items() if not k.endswith("num_batches_tracked")}
    prefix = best_prefix(stored, wanted)
    chosen = {k: stored[prefix + k] for k in backbone.state_dict() if prefix + k in stored}
    _resize_position_embedding(chosen, backbone)
    added = tuple(k for k in wanted if k not in chosen and ADDED_BLOCKS.search(k))
    missing = [k for k in wanted if k not in chosen and k not in added]
    wrong = [
        f"{k} is {tuple(v.shape)} in the file and {tuple(wanted[k].shape)} in the model"
        for k, v in chosen.items()
        if k in wanted and v.shape != wanted[k].shape
    ]
    if missing or wrong:
        raise WeightFileError(_misfit(path, len(wanted), missing, wrong))
    backbone.load_state_dict(chosen, strict=False)
    used = {prefix + k for k in chosen}
    found, unused = sum(k in chosen for k in wanted), sum(k not in used for k in stored)
    text = "%s: %d of %d backbone tensors loaded, %d in the file unused."
    logger.info(text, path, found, len(wanted), unused)
    if added:
        logger.warning("%s: %d tensors start from random, e.g. %s.", path, len(added), added[0])


def single_stream_name(name: str) -> str:
    """``backbone.backbone.conv1.day.weight`` of a dual-stream encoder is ``backbone.conv1.weight`` of a plain one."""
    return _STREAM.sub(".", name).replace("backbone.backbone.", "backbone.", 1)


def best_prefix(stored: Iterable[str], wanted: Iterable[str]) -> str:
    """The prefix ("" too) with which most ``wanted`` names are among the ``stored``; ties: shortest."""
    stored, wanted = set(stored), list(wanted)
    candidates = {""}
    for name in stored:
        parts = name.split(".")
        candidates |= {".".join(parts[:n]) + "." for n in range(1, min(MAX_PREFIX_PARTS, len(parts) - 1) + 1)}
    return max(sorted(candidates, key=len), key=lambda p: sum(p + k in stored for k in wanted))


def _misfit(path: str | Path, total: int, missing: list[str], wrong: list[str]) -> str:
    parts = []
    if missing:
        parts.append(f"{len(missing)} of {total} backbone tensors are missing ({', '.join(missing[:5])} ...)")
    if wrong:
        parts.append(f"{len(wrong)} have another shape ({'; '.join(wrong[:3])})")
    return (
        f"{path} does not fit the backbone: {' and '.join(parts)}; choose the file made for "
        f"MODEL.BACKBONE.NAME, DEPTH, NORM and WITH_* as configured."
    )


def _resize_position_embedding(chosen: dict[str, Tensor], backbone: nn.Module) -> None:
    """Bilinearly resize a vision transformer's square position grid ``(1, 1 + T, D)`` to the model's."""
    patches = getattr(backbone, "patch_embed", None)
    stored, own = chosen.get("pos_embed"), getattr(backbone, "pos_embed", None)
    if patches is None or stored is None or own is None or stored.shape == own.shape:
        return
    side = math.isqrt(stored.shape[1] - 1)
    if stored.ndim != 3 or stored.shape[2] != own.shape[2] or side * side != stored.shape[1] - 1:
        return
    grids = (side, side), (patches.num_y, patches.num_x)
    chosen["pos_embed"] = resize_position_embedding(stored[0].float(), *grids)[None]
