"""Let fast-reid scripts import our trainer, predictor and launcher under fast-reid's names."""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

import fastreid.engine
import fastreid.engine.defaults as defaults
import fastreid.solver.build
from fastreid.config import CfgNode
from fastreid.engine import hooks
from fastreid.engine.train_loop import TrainerBase
from fastreid.utils import comm
from fastreid.utils.env import seed_all_rng
from torch import nn

from ..patches import old_names
from ..runtime.config_files import ConfigError, tests_follow, use_plugins
from ..runtime.launch import launch
from ..runtime.logs import log_start, setup_logs
from ..runtime.run_folder import look_before
from ..runtime.shipped import find_config
from ..runtime.workers import also_call
from .evaluation_file import log_folder
from .overrides import schedule_hook
from .predictor import UnitPredictor
from .solver.optimizer import build_optimizer
from .trainer import CrossDomainTrainer

logger = logging.getLogger(__name__)

_merge_from_file = CfgNode.merge_from_file
_merge_from_list = CfgNode.merge_from_list
fastreid_setup, fastreid_start = defaults.default_setup, TrainerBase.__init__


def take_over() -> None:
    """``from fastreid.engine import DefaultTrainer, DefaultPredictor, launch`` gives ours, in workers too.

    A script's config also finds our configs by name, and ``DATASETS.TESTS`` follows ``DATASETS.NAMES`` as on our own
    command line.
    """
    old_names.put_in_place()  # a project's modules are imported after fast-reid's
    CfgNode.merge_from_file = _merge_by_name
    CfgNode.merge_from_list = _merge_and_follow
    for module in (fastreid.engine, defaults):
        module.DefaultTrainer = CrossDomainTrainer
        module.DefaultPredictor = UnitPredictor
        module.default_setup = default_setup
    # In fast-reid `launch` names both a module and the function in it.
    sys.modules["fastreid.engine.launch"].launch = launch  # type: ignore[attr-defined]
    fastreid.engine.launch = launch
    for module in (fastreid.solver, fastreid.solver.build):
        module.build_optimizer = build_pair
    hooks.LRScheduler = schedule_hook
    TrainerBase.__init__ = start_of_a_trainer
    also_call(take_over)


def default_setup(cfg: Any, args: Any) -> None:
    """fast-reid's, with ``SEED`` where it uses a random seed.

    It writes ``config.yaml`` and ``log.txt`` at once: those of an earlier run are remembered for `set_aside`. An
    evaluation writes its log where its file will be, and nothing of a run changes.
    """
    if getattr(args, "eval_only", False):
        setup_logs(log_folder(cfg))
        log_start(cfg, args)
        return
    if cfg.OUTPUT_DIR and comm.is_main_process():
        look_before(cfg.OUTPUT_DIR)
    defaults.seed_all_rng = functools.partial(seed_all_rng, getattr(cfg, "SEED", None))
    fastreid_setup(cfg, args)


def _merge_by_name(self: CfgNode, cfg_filename: str, allow_unsafe: bool = False) -> None:
    path = find_config(cfg_filename)
    use_plugins(self, CfgNode.load_yaml_with_base(str(path), allow_unsafe), path)
    _merge_from_file(self, str(path), allow_unsafe)


def _merge_and_follow(self: CfgNode, cfg_list: list[Any]) -> None:
    follow = tests_follow(self, cfg_list)
    use_plugins(self, dict(zip(cfg_list[::2], cfg_list[1::2])))
    _merge_from_list(self, cfg_list)
    if follow:
        self.DATASETS.TESTS = self.DATASETS.NAMES
        # There is no handler yet: Python's default one shows warnings on the console.
        logger.warning("Only DATASETS.NAMES was changed; DATASETS.TESTS is now %s, too.", self.DATASETS.TESTS)


def build_pair(cfg: Any, model: nn.Module, contiguous: bool = True) -> tuple[Any, None]:
    """Our optimizer instead of fast-reid's, whose flat buffers (``contiguous``) update no weight on PyTorch >= 2."""
    return build_optimizer(cfg, model), None


def start_of_a_trainer(self: Any) -> None:
    """``TrainerBase.__init__``, which a subclass of ours calls only to skip our own.

    Raises:
        ConfigError: it is called by such a subclass.
    """
    if isinstance(self, CrossDomainTrainer):
        raise ConfigError(
            f"{type(self).__name__}.__init__ builds a trainer itself and skips DefaultTrainer's; call "
            "super().__init__(cfg) and override the build_... methods."
        )
    fastreid_start(self)
