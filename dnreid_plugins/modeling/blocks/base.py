"""Base of the blocks: what they are told when they are built, and how they get into a backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...runtime.sections import construct
from ..encoder_pass import EncoderPass
from ..parts import PartRegistry

BLOCK_REGISTRY = PartRegistry("BLOCK", "MODEL.BLOCKS")
BLOCK_REGISTRY.__doc__ = "Blocks by their name in ``MODEL.BLOCKS.NAME``."


@dataclass(frozen=True)
class Place:
    """Where a block stands: behind the sub-module ``name``, whose map has ``channels``; the encoder's feature has
    ``width`` numbers."""

    name: str
    channels: int
    width: int


class Block(nn.Module):
    """Base of all blocks: map ``(B, K, h, w)`` -> map of the same shape; one object per place.

    A block is told of the images, their domains and labels by the running pass, and never by their order.

    Args:
        after: the sub-modules behind which blocks of this kind stand.
        place: where this one stands.
    """

    #: Tensors of the parts that it reads, see `Part.for_encoder`.
    reads: ClassVar[tuple[str, ...]] = ()
    #: Outputs for the losses, in train mode; they stand in `BatchFeatures.extra`.
    gives: ClassVar[tuple[str, ...]] = ()
    running: EncoderPass

    def __init__(self, *, after: Sequence[str] = (), place: Place) -> None:
        super().__init__()
        self.after, self.place = tuple(after), place

    @classmethod
    def from_config(cls, cfg: Any, place: Place) -> Block:
        """Build from the section of the class; may refuse a combination with other sections.

        Raises:
            ValueError: a value that the signature does not allow.
        """
        return construct(cls, cfg, place=place)


class Followed(nn.Sequential):
    """A sub-module of a backbone and the blocks behind it."""


def build_blocks(cfg: Any, backbone: nn.Module) -> list[tuple[str, Block]]:
    """The blocks of ``MODEL.BLOCKS.NAME`` with the sub-module that each stands behind, in the order of the config.

    Args:
        backbone: as its builder made it, before it is split by domain.

    Raises:
        ValueError: an unknown or repeated name, no or an unknown sub-module, or what a block refuses.
    """
    names, known = tuple(cfg.MODEL.BLOCKS.NAME), BLOCK_REGISTRY.names()
    for name in names:
        if name not in known or names.count(name) > 1:
            raise ValueError(f"MODEL.BLOCKS.NAME is {names!r}; name each block once, known are {known}.")
    places = {name: tuple(cfg.MODEL.BLOCKS[name.upper()].AFTER) for name in names}
    channels = _channels_behind(backbone, places, cfg.INPUT.SIZE_TEST)
    width = cfg.MODEL.HEADS.EMBEDDING_DIM or cfg.MODEL.BACKBONE.FEAT_DIM
    return [
        (after, BLOCK_REGISTRY.get(name).from_config(cfg, Place(after, channels[after], width)))
        for name in names
        for after in places[name]
    ]


def insert_blocks(backbone: nn.Module, blocks: Sequence[tuple[str, Block]], running: EncoderPass) -> None:
    """Put each block behind its sub-module; several behind the same one in the order given.

    Raises:
        ValueError: a sub-module lies inside another one that each domain has its own copy of.
    """
    for name, block in blocks:
        block.running = running
        parent_name, _, child = name.rpartition(".")
        try:
            parent = backbone.get_submodule(parent_name)
            module: Any = parent.get_submodule(child)
        except AttributeError:
            raise ValueError(
                f"A block of MODEL.BLOCKS stands behind {name!r}, which is inside a part that "
                "MODEL.DUAL_STREAM.MODULES copies per domain; place it behind the whole part."
            ) from None
        if isinstance(module, Followed):
            module.append(block)
        else:
            setattr(parent, child, Followed(module, block))


def _channels_behind(
    backbone: nn.Module, places: dict[str, tuple[str, ...]], size: Sequence[int]
) -> dict[str, int]:
    """Channels of the map that each named sub-module gives, from one pass of an empty image."""
    modules, found = dict(backbone.named_modules()), dict[str, int]()
    for block, names in places.items():
        wrong = [name for name in names if name not in modules or not name]
        if wrong or not names or len(set(names)) < len(names):
            raise ValueError(
                f"MODEL.BLOCKS.{block.upper()}.AFTER is {names!r}; name sub-modules of {type(backbone).__name__}, "
                f"each once, such as {[name for name, _ in backbone.named_children()]}."
            )

    def watch(name: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                found[name] = output.shape[1]

        return modules[name].register_forward_hook(keep)

    wanted = {name for names in places.values() for name in names}
    if not wanted:
        return {}
    hooks = [watch(name) for name in wanted]
    training = [(module, module.training) for module in backbone.modules()]
    parameter = next(backbone.parameters())
    try:
        with torch.no_grad():
            backbone.eval()(parameter.new_zeros(1, 3, *size))
    finally:
        for module, mode in training:
            module.training = mode
        for hook in hooks:
            hook.remove()
    if missing := sorted(wanted - found.keys()):
        raise ValueError(
            f"MODEL.BLOCKS places a block behind {missing[0]!r}, which gives no map (B, C, h, w) when an image "
            "passes; name a module that the backbone calls, for a stage its last layer."
        )
    return found
