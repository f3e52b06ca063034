"""From ``MODEL.LOSSES.NAME`` to loss heads."""

from __future__ import annotations

from typing import Any

from torch import nn

from .base import LOSS_HEAD_REGISTRY, LossHead


def build_loss_heads(cfg: Any) -> nn.ModuleDict:
    """The loss heads of ``MODEL.LOSSES.NAME`` by name, in that order.

    Raises:
        ValueError: no name, an unknown name, one that stands twice, or a head without the one it works with.
    """
    names = tuple(cfg.MODEL.LOSSES.NAME)
    known = sorted(LOSS_HEAD_REGISTRY._obj_map)
    for name in names:
        if name not in known:
            raise ValueError(
                f"MODEL.LOSSES.NAME holds {name!r}, which {cfg.MODEL.META_ARCHITECTURE} does not know; "
                f"known loss heads: {known}."
            )
    if not names or len(set(names)) != len(names):
        raise ValueError(f"MODEL.LOSSES.NAME is {names!r}; name at least one loss head, each of them once.")
    heads: dict[str, LossHead] = {name: LOSS_HEAD_REGISTRY.get(name).from_config(cfg) for name in names}
    for head in heads.values():
        head.connect(heads)
    return nn.ModuleDict(heads)
