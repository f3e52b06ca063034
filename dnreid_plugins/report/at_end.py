"""The report that a run writes when it ends, from the features of its last evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastreid.engine.train_loop import HookBase
from fastreid.utils import comm

from ..evaluation.evaluator import Extracted, keeping_features
from .page import write_report
from .page.folder import REPORT
from .page.material import of_training

logger = logging.getLogger(__name__)


class ForgetFeatures(HookBase):
    """Lets go of the features of an evaluation when another epoch begins, so that only the last ones are kept."""

    def __init__(self, kept: dict[str, Extracted]) -> None:
        self.kept = kept

    def before_epoch(self) -> None:
        self.kept.clear()


@contextmanager
def reporting(trainer: Any) -> Iterator[None]:
    """Around the training: where it comes to its end, the main process writes ``OUTPUT_DIR/report.html``.

    Nothing is written where ``REPORT.ENABLED`` is off or there is no ``OUTPUT_DIR``, after an interruption, or where a
    resume found a finished run that has its report. A report that fails is a warning: the run is complete without it.
    """
    cfg = trainer.cfg
    if not cfg.REPORT.ENABLED or not cfg.OUTPUT_DIR or not comm.is_main_process():
        yield
        return
    with keeping_features() as kept:
        trainer.register_hooks([ForgetFeatures(kept)])
        yield
    path = Path(cfg.OUTPUT_DIR) / REPORT
    if trainer.start_iter >= trainer.max_iter and path.is_file():
        return
    _write(trainer, kept)


def _write(trainer: Any, kept: Mapping[str, Extracted]) -> None:
    folder, begun = trainer.cfg.OUTPUT_DIR, time.monotonic()
    nothing_new = trainer.start_iter >= trainer.max_iter
    try:
        material = None if nothing_new else of_training(trainer, kept)
        path = write_report(folder, cfg=trainer.cfg, material=material)
    except Exception as error:  # whatever it is, the run must not be lost for its report
        logger.warning(
            "The report could not be written (%s); the run itself is complete, and `dnreid report %s` tries again.",
            error,
            folder,
        )
        logger.debug("traceback of the error", exc_info=True)
    else:
        logger.info("The report of the run is %s (made in %.0f s).", path, time.monotonic() - begun)
