"""Domain-specific shallow layers around any backbone."""

from __future__ import annotations

import copy
import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..functional.types import Domain
from .blocks.base import Block, insert_blocks
from .encoder_pass import Context, EncoderPass

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


class PerDomain(nn.Module):
    """Two copies of one module: the leading day images go through ``day``, the rest through ``night``."""

    def __init__(self, module: nn.Module, running: EncoderPass) -> None:
        super().__init__()
        self.day = module
        self.night = copy.deepcopy(module)
        self._pass = running

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (B, ...) with the day images first; returns the two parts' outputs in the same order."""
        return _in_both([self], x, self._pass)

    def of(self, domain: Domain) -> nn.Module:
        """The copy of one domain."""
        return self.day if domain == Domain.DAY else self.night


class StreamSequential(nn.Sequential):
    """A Sequential whose neighbouring `PerDomain` layers pass a map on in two parts, joined after the last of them."""

    def __init__(self, layers: dict[str, nn.Module], running: EncoderPass) -> None:
        super().__init__(OrderedDict(layers))
        self._pass = running

    def forward(self, x: Tensor) -> Tensor:
        for per_domain, layers in itertools.groupby(self, lambda layer: isinstance(layer, PerDomain)):
            if per_domain:
                x = _in_both(list(layers), x, self._pass)
            else:
                for layer in layers:
                    x = layer(x)
        return x


def _in_both(layers: Sequence[Any], x: Tensor, running: EncoderPass) -> Tensor:
    """``x`` through neighbouring `PerDomain` layers."""
    num_day = running.num_day
    only = running.only
    if only is None and num_day in (0, len(x)):
        only = Domain.NIGHT if num_day == 0 else Domain.DAY
    if only is not None:
        for layer in layers:
            x = layer.of(only)(x)
        return x
    day, night = running.halves(x)
    for layer in layers:
        day, night = layer.day(day), layer.night(night)
    return running.join(day, night)


class DualStream(nn.Module):
    """A backbone with its own copy of the named sub-modules per domain; everything else is shared.

    The copies are equal at the start, so that right after construction (in eval mode) the result is that of the plain
    backbone. The shared part processes both domains in one concatenated batch.

    Args:
        backbone: any module that maps images ``(B, 3, H, W)`` to a feature map.
        modules: names of sub-modules as in ``backbone.named_modules()``, e.g. ``("conv1", "layer1")``.
            Children of a named ``nn.Sequential`` or ``nn.ModuleList`` (the non-local blocks of a ResNet, ``NL_2``) are
            copied one by one, since some backbones index it.
        freeze_shared_statistics: shared batch-norm layers keep using their present running statistics
            (their scale and shift still train).
        blocks: ``(name of a sub-module, block)``: the block gets that module's output, in one pass of both domains;
            see `build_blocks`.

    Raises:
        ValueError: a name is not a sub-module, is named twice or lies inside another named one.
    """

    def __init__(
        self,
        backbone: nn.Module,
        modules: Sequence[str] = (),
        *,
        freeze_shared_statistics: bool = False,
        blocks: Sequence[tuple[str, Block]] = (),
    ) -> None:
        super().__init__()
        _check_names(backbone, modules)
        self._pass = EncoderPass()
        for name in modules:
            _copy_per_domain(backbone, name, self._pass)
        insert_blocks(backbone, blocks, self._pass)
        self.backbone = backbone
        self.has_blocks = bool(blocks)
        self.extras = tuple(dict.fromkeys(name for _, block in blocks for name in block.gives))
        self.two_streams = bool(modules)
        self.freeze_shared_statistics = freeze_shared_statistics

    def forward(self, images: Tensor, domains: Tensor | Domain, context: Context | None = None) -> Tensor:
        """``images`` (B, 3, H, W), ``domains`` (B,) int64 (0 day, 1 night); returns the map (B, C, h, w).

        With one `Domain` for all images nothing depends on the values of a tensor, so that the pass can be exported.
        ``context`` is for the blocks; what they give to the losses is in `take_outputs`.
        """
        running = self._pass
        running.only = domains if isinstance(domains, Domain) else None
        order: Tensor | None = None
        if not isinstance(domains, Domain):
            # One copy to the host for both.
            unsorted, running.num_day = torch.stack(
                [(domains[1:] < domains[:-1]).any().long(), (domains == 0).sum()]
            ).tolist()
            order = torch.argsort(domains, stable=True) if unsorted else None
        if order is not None:
            images = images[order]
            context = None if context is None else context.where(order)
        running.given, running.outputs = context, {}
        try:
            maps = self.backbone(images)
        finally:
            running.end()
        if order is None:
            return maps
        back = torch.argsort(order)
        running.outputs = {name: value[back] for name, value in running.outputs.items()}
        return maps[back]

    def take_outputs(self) -> dict[str, Tensor]:
        """What the blocks of the last pass in train mode gave by name, ``(B, ...)`` in the order of its images."""
        outputs, self._pass.outputs = self._pass.outputs, {}
        return outputs

    def single(self, domain: Domain) -> DualStream:
        """A copy for one domain, called with it: each pair is replaced by that domain's module."""
        copied = copy.deepcopy(self)
        backbone = copied.backbone
        pairs = [name for name, module in backbone.named_modules() if isinstance(module, PerDomain)]
        for name in pairs:
            parent_name, _, child = name.rpartition(".")
            pair: Any = backbone.get_submodule(name)
            setattr(backbone.get_submodule(parent_name), child, pair.of(domain))
        return copied

    def train(self, mode: bool = True) -> DualStream:
        super().train(mode)
        if mode and self.freeze_shared_statistics:
            for module in self.shared_batch_norms():
                module.eval()
        return self

    def shared_batch_norms(self) -> Iterator[nn.Module]:
        """The batch-norm layers that both domains use."""
        own = {id(m) for part in self.modules() if isinstance(part, PerDomain) for m in part.modules()}
        return (m for m in self.modules() if isinstance(m, BATCH_NORMS) and id(m) not in own)


def _check_names(backbone: nn.Module, names: Sequence[str]) -> None:
    known = dict(backbone.named_modules())
    for name in names:
        if not name or name not in known:
            top = [child for child, _ in backbone.named_children()]
            raise ValueError(
                f"MODEL.DUAL_STREAM.MODULES names {name!r}, which the backbone {type(backbone).__name__} does "
                f"not have; its parts are {top}."
            )
        if list(names).count(name) > 1 or any(name.startswith(other + ".") for other in names):
            raise ValueError(
                f"MODEL.DUAL_STREAM.MODULES names {name!r} twice or inside another named part; name it once."
            )


def _copy_per_domain(backbone: nn.Module, name: str, running: EncoderPass) -> None:
    parent_name, _, child = name.rpartition(".")
    parent = backbone.get_submodule(parent_name)
    module = getattr(parent, child)
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        for key, block in list(module.named_children()):
            # Layers without state need no copy, and an in-place ReLU must not work on two views of one tensor.
            if block.state_dict():
                setattr(module, key, PerDomain(block, running))
        if type(module) is nn.Sequential:
            setattr(parent, child, StreamSequential(dict(module.named_children()), running))
    else:
        setattr(parent, child, PerDomain(module, running))
