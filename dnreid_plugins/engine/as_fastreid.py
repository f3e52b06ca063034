"""Put our trainer and launcher where a fast-reid script looks for fast-reid's."""

from __future__ import annotations

import sys

import fastreid.engine
import fastreid.engine.defaults

from ..workers import also_call
from .distributed import launch
from .predictor import Predictor
from .trainer import CrossDomainTrainer


def take_over() -> None:
    """``from fastreid.engine import DefaultTrainer, DefaultPredictor, launch`` gives ours, in workers too."""
    for module in (fastreid.engine, fastreid.engine.defaults):
        module.DefaultTrainer = CrossDomainTrainer
        module.DefaultPredictor = Predictor
    # In fast-reid `launch` names both a module and the function in it.
    sys.modules["fastreid.engine.launch"].launch = launch  # type: ignore[attr-defined]
    fastreid.engine.launch = launch
    also_call(take_over)
