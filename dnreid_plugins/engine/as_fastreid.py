"""Put our trainer and launcher where a fast-reid script looks for fast-reid's."""

from __future__ import annotations

import sys

import fastreid.engine
import fastreid.engine.defaults

from .distributed import launch
from .predictor import UnitPredictor
from .trainer import CrossDomainTrainer


def take_over() -> None:
    """``from fastreid.engine import DefaultTrainer, DefaultPredictor, launch`` gives ours in this process."""
    for module in (fastreid.engine, fastreid.engine.defaults):
        module.DefaultTrainer = CrossDomainTrainer
        module.DefaultPredictor = UnitPredictor
    # In fast-reid `launch` names both a module and the function in it.
    sys.modules["fastreid.engine.launch"].launch = launch  # type: ignore[attr-defined]
    fastreid.engine.launch = launch
