"""Domain-specific shallow layers around any backbone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..functional.types import Domain

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


class _Split:
    """Number of leading day images in the current batch, or the domain of all images; shared by all the pairs."""

    num_day: int = 0
    only: Domain | None = None


class PerDomain(nn.Module):
    """Two copies of one module: the leading day images go through ``day``, the rest through ``night``."""

    def __init__(self, module: nn.Module, split: _Split) -> None:
        super().__init__()
        self.day = module
        self.night = copy.deepcopy(module)
        self._split = split

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (B, ...) with the day images first; returns the two parts' outputs in the same order."""
        if self._split.only is not None:
            return self.of(self._split.only)(x)
        num_day = self._split.num_day
        if num_day == 0:
            return self.night(x)
        if num_day == len(x):
            return self.day(x)
        return torch.cat([self.day(x[:num_day]), self.night(x[num_day:])])

    def of(self, domain: Domain) -> nn.Module:
        """The copy of one domain."""
        return self.day if domain == Domain.DAY else self.night


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

    Raises:
        ValueError: a name is not a sub-module, is named twice or lies inside another named one.
    """

    def __init__(
        self, backbone: nn.Module, modules: Sequence[str] = (), *, freeze_shared_statistics: bool = False
    ) -> None:
        super().__init__()
        _check_names(backbone, modules)
        self._split = _Split()
        for name in modules:
            _copy_per_domain(backbone, name, self._split)
        self.backbone = backbone
        self.two_streams = bool(modules)
        self.freeze_shared_statistics = freeze_shared_statistics

    def forward(self, images: Tensor, domains: Tensor | Domain) -> Tensor:
        """``images`` (B, 3, H, W), ``domains`` (B,) int64 (0 day, 1 night); returns the map (B, C, h, w).

        With one `Domain` for all images nothing depends on the values of a tensor, so that the pass can be exported.
        """
        self._split.only = domains if isinstance(domains, Domain) else None
        if isinstance(domains, Domain):
            return self.backbone(images)
        order = torch.argsort(domains, stable=True)
        self._split.num_day = int((domains == 0).sum())
        in_order = bool((order[1:] > order[:-1]).all())
        if in_order:
            return self.backbone(images)
        return self.backbone(images[order])[torch.argsort(order)]

    def single(self, domain: Domain) -> nn.Module:
        """A copy of the backbone for one domain: each pair is replaced by that domain's module."""
        backbone = copy.deepcopy(self.backbone)
        pairs = [name for name, module in backbone.named_modules() if isinstance(module, PerDomain)]
        for name in pairs:
            parent_name, _, child = name.rpartition(".")
            pair: Any = backbone.get_submodule(name)
            setattr(backbone.get_submodule(parent_name), child, pair.of(domain))
        return backbone

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


def _copy_per_domain(backbone: nn.Module, name: str, split: _Split) -> None:
    parent_name, _, child = name.rpartition(".")
    parent = backbone.get_submodule(parent_name)
    module = getattr(parent, child)
    if isinstance(module, (nn.Sequential, nn.ModuleList)):
        for key, block in list(module.named_children()):
            # Layers without state need no copy, and an in-place ReLU must not work on two views of one tensor.
            if block.state_dict():
                setattr(module, key, PerDomain(block, split))
    else:
        setattr(parent, child, PerDomain(module, split))
