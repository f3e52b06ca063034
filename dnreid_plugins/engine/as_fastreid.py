"""Put our trainer, launcher and other parts where a fast-reid script looks for fast-reid's."""

from __future__ import annotations

import functools
import sys
from typing import Any

import fastreid.engine
import fastreid.engine.defaults as defaults
import fastreid.solver.build
from fastreid.engine import hooks
from fastreid.engine.train_loop import TrainerBase
from fastreid.utils.env import seed_all_rng
from torch import nn

from .. import old_names
from .config_merge import ConfigError
from .distributed import launch
from .overrides import schedule_hook
from .predictor import Predictor
from .solver import build_optimizer
from .trainer import CrossDomainTrainer

fastreid_setup, fastreid_start = defaults.default_setup, TrainerBase.__init__


def take_over() -> None:
    """``from fastreid.engine import DefaultTrainer, DefaultPredictor, launch`` gives ours in this process."""
    old_names.put_in_place()  # a project's modules are imported later than fast-reid's
    for module in (fastreid.engine, defaults):
        module.DefaultTrainer = CrossDomainTrainer
        module.DefaultPredictor = Predictor
        module.default_setup = default_setup
    # In fast-reid `launch` names both a module and the function in it.
    sys.modules["fastreid.engine.launch"].launch = launch  # type: ignore[attr-defined]
    fastreid.engine.launch = launch
    for module in (fastreid.solver, fastreid.solver.build):
        module.build_optimizer = build_pair
    hooks.LRScheduler = schedule_hook
    TrainerBase.__init__ = start_of_a_trainer


def default_setup(cfg: Any, args: Any) -> None:
    """fast-reid's, with ``SEED`` where it makes up a seed."""
    defaults.seed_all_rng = functools.partial(seed_all_rng, getattr(cfg, "SEED", None))
    fastreid_setup(cfg, args)


def build_pair(cfg: Any, model: nn.Module, contiguous: bool = True) -> tuple[Any, None]:
    """Our optimizer in place of fast-reid's, whose flat buffers (``contiguous``) move no weight on PyTorch >= 2."""
    return build_optimizer(cfg, model), None


def start_of_a_trainer(self: Any) -> None:
    """``TrainerBase.__init__``, which a subclass of ours calls only to leave out our own.

    Raises:
        ConfigError: it is one.
    """
    if isinstance(self, CrossDomainTrainer):
        raise ConfigError(
            f"{type(self).__name__}.__init__ puts a trainer together by itself and leaves out DefaultTrainer's; call "
            "super().__init__(cfg) and override the build_... methods."
        )
    fastreid_start(self)
