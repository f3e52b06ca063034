"""Put our trainer and launcher where a fast-reid script looks for fast-reid's."""

from __future__ import annotations

import logging
import sys
from typing import Any

import fastreid.engine
import fastreid.engine.defaults
from fastreid.config import CfgNode
from fastreid.utils import comm

from ..workers import also_call
from .config_merge import tests_follow
from .distributed import launch
from .predictor import Predictor
from .run_folder import look_before
from .shipped import find_config
from .trainer import CrossDomainTrainer

logger = logging.getLogger(__name__)

_merge_from_file = CfgNode.merge_from_file
_merge_from_list = CfgNode.merge_from_list
fastreids_setup = fastreid.engine.defaults.default_setup


def default_setup(cfg: Any, args: Any) -> None:
    """fast-reid's, which writes ``config.yaml`` at once: that of an earlier run is remembered for `set_aside`."""
    if cfg.OUTPUT_DIR and comm.is_main_process():
        look_before(cfg.OUTPUT_DIR)
    fastreids_setup(cfg, args)


def take_over() -> None:
    """``from fastreid.engine import DefaultTrainer, DefaultPredictor, launch`` gives ours, in workers too.

    A script's config also knows our configs by name, and ``DATASETS.TESTS`` follows ``DATASETS.NAMES`` as on our own
    command line.
    """
    CfgNode.merge_from_file = _merge_by_name
    CfgNode.merge_from_list = _merge_and_follow
    for module in (fastreid.engine, fastreid.engine.defaults):
        module.DefaultTrainer = CrossDomainTrainer
        module.DefaultPredictor = Predictor
        module.default_setup = default_setup
    # In fast-reid `launch` names both a module and the function in it.
    sys.modules["fastreid.engine.launch"].launch = launch  # type: ignore[attr-defined]
    fastreid.engine.launch = launch
    also_call(take_over)


def _merge_by_name(self: CfgNode, cfg_filename: str, allow_unsafe: bool = False) -> None:
    _merge_from_file(self, str(find_config(cfg_filename)), allow_unsafe)


def _merge_and_follow(self: CfgNode, cfg_list: list[Any]) -> None:
    follow = tests_follow(self, cfg_list)
    _merge_from_list(self, cfg_list)
    if follow:
        self.DATASETS.TESTS = self.DATASETS.NAMES
        # No handler is there yet: Python's own puts a warning on the screen.
        logger.warning("DATASETS.NAMES is changed alone; DATASETS.TESTS is %s, too.", self.DATASETS.TESTS)
