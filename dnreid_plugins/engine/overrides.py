"""Overrides in subclasses of the trainer: methods of fast-reid's ``DefaultTrainer``, with fast-reid's types."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastreid.config import CfgNode
from fastreid.engine.hooks import LRScheduler
from fastreid.engine.train_loop import HookBase
from fastreid.utils.params import ContiguousParams
from torch.optim.optimizer import Optimizer

from ..runtime.config_files import ConfigError
from .solver.schedule import EpochSchedule

# Methods that a run on pseudo labels never calls: it reads all training images and has no fixed classes.
UNUSED_BY_CLUSTERS = ("build_train_loader", "auto_scale_hyperparams")


def overridden(cls: type, base: type, names: Sequence[str]) -> list[str]:
    """Those of ``names`` that ``cls`` does not inherit unchanged from ``base``."""
    return [n for n in names if inspect.getattr_static(cls, n) is not inspect.getattr_static(base, n)]


def refuse_unused(cls: type, base: type, cfg: CfgNode) -> None:
    """Refuse an override that training on pseudo labels would ignore.

    Raises:
        ConfigError: with the method's name.
    """
    for name in overridden(cls, base, UNUSED_BY_CLUSTERS):
        raise ConfigError(
            f"{cls.__name__}.{name} is never called with MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE!r}, which trains on pseudo labels; leave it out or choose an architecture "
            "that trains on identities, such as Baseline."
        )


def refuse_lost_hooks(cls: type, hooks: Sequence[HookBase], needed: Sequence[type[HookBase]]) -> None:
    """Refuse a list of hooks without which nothing would be trained.

    Raises:
        ConfigError: with the missing hook's name.
    """
    for kind in needed:
        if not any(isinstance(hook, kind) for hook in hooks):
            raise ConfigError(
                f"{cls.__name__}.build_hooks leaves out {kind.__name__}, without which there are no pseudo labels to "
                "train on; begin with super().build_hooks() and add to that list."
            )


def only_optimizer(cls: type, built: Any) -> Optimizer:
    """The optimizer from the result of ``build_optimizer``: fast-reid's pair with a wrapper, or the optimizer alone.

    Raises:
        ConfigError: the wrapper has copied the parameters; such an optimizer updates no weight on PyTorch >= 2.
    """
    optimizer, wrapper = built if isinstance(built, tuple) else (built, None)
    if isinstance(wrapper, ContiguousParams):
        raise ConfigError(
            f"{cls.__name__}.build_optimizer copies the parameters into flat buffers (ContiguousParams), with which "
            "PyTorch >= 2 updates no weight; call super().build_optimizer(cfg, model) or give contiguous=False."
        )
    return optimizer


class FastreidSchedule(LRScheduler):
    """fast-reid's hook around the ``lr_sched`` and ``warmup_sched`` that a script built; a checkpoint keeps both."""

    name = "schedule"

    def __init__(self, optimizer: Optimizer, scheduler: dict[str, Any]) -> None:
        super().__init__(optimizer, scheduler)
        self.schedulers = scheduler

    def before_train(self) -> None:
        if "warmup_sched" not in self.schedulers:  # else fast-reid's hook would require it
            self.trainer.warmup_iters = 0

    def state_dict(self) -> dict[str, Any]:
        return {name: one.state_dict() for name, one in self.schedulers.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, one in self.schedulers.items():
            own = vars(one)
            # A checkpoint holds plain values only.
            as_before = {
                k: Counter(v) if isinstance(own.get(k), Counter) else v for k, v in state[name].items()
            }
            one.load_state_dict(as_before)


def schedule_hook(optimizer: Optimizer, scheduler: EpochSchedule | dict[str, Any]) -> HookBase:
    """The hook for our schedule or for fast-reid's dict of schedulers; replaces ``hooks.LRScheduler``."""
    return (
        scheduler.hook() if isinstance(scheduler, EpochSchedule) else FastreidSchedule(optimizer, scheduler)
    )
