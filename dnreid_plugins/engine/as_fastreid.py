"""Put our trainer and launcher where a fast-reid script looks for fast-reid's."""

from __future__ import annotations

import sys
from typing import Any

import fastreid.engine
import fastreid.engine.defaults
from fastreid.utils import comm

from ..workers import also_call
from .distributed import launch
from .predictor import Predictor
from .run_folder import look_before
from .trainer import CrossDomainTrainer

fastreids_setup = fastreid.engine.defaults.default_setup


def default_setup(cfg: Any, args: Any) -> None:
    """fast-reid's, which writes ``config.yaml`` at once: that of an earlier run is remembered for `set_aside`."""
    if cfg.OUTPUT_DIR and comm.is_main_process():
        look_before(cfg.OUTPUT_DIR)
    fastreids_setup(cfg, args)


def take_over() -> None:
    """``from fastreid.engine import DefaultTrainer, DefaultPredictor, launch`` gives ours, in workers too."""
    for module in (fastreid.engine, fastreid.engine.defaults):
        module.DefaultTrainer = CrossDomainTrainer
        module.DefaultPredictor = Predictor
        module.default_setup = default_setup
    # In fast-reid `launch` names both a module and the function in it.
    sys.modules["fastreid.engine.launch"].launch = launch  # type: ignore[attr-defined]
    fastreid.engine.launch = launch
    also_call(take_over)
