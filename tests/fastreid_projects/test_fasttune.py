"""FastTune: search for hyperparameters with Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastreid.engine
import pytest
from fastreid.config import CfgNode
from fastreid.engine import hooks
from fastreid.engine.hooks import EvalHook
from fastreid.utils.events import CommonMetricPrinter


def test_hooks_put_together_by_hand(cfg: CfgNode, run: Any, tmp_path: Path) -> None:
    """Patched: hooks listed by hand work, with a learning-rate and an evaluation hook and `trainer.checkpointer`."""
    scores: list[dict[str, Any]] = []

    class Report(EvalHook):
        def _do_eval(self) -> None:
            scores.append(self._func())
            self.trainer.checkpointer.save_dir = str(tmp_path)
            self.trainer.checkpointer.save(name="checkpoint", epoch=int(self.trainer.epoch))

    class Tuner(fastreid.engine.DefaultTrainer):
        def build_hooks(self) -> list[Any]:
            return [
                hooks.IterationTimer(),
                hooks.LRScheduler(self.optimizer, self.scheduler),
                Report(self.cfg.TEST.EVAL_PERIOD, lambda: self.test(self.cfg, self.model)),
                hooks.PeriodicWriter([CommonMetricPrinter(self.max_iter)], 200),
            ]

    cfg.DATALOADER.ITERS_PER_EPOCH = 4
    run(Tuner, cfg)
    assert len(scores) == 1 and "D2N" in scores[0]["DN348"] and (tmp_path / "checkpoint.pth").is_file()


def test_its_freezing_takes_an_argument_more(cfg: CfgNode) -> None:
    """Dead upstream: it gives `LayerFreeze` a fourth argument that fast-reid 1.4.0 removed, and imports
    `ray.tune.suggest`, which Ray 2 moved."""
    with pytest.raises(TypeError, match="4 were given|5 were given"):
        hooks.LayerFreeze(None, ["backbone"], 10, 0)  # type: ignore[call-arg]
