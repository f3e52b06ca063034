"""One console and one log file for fast-reid's messages and ours."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fastreid.utils import comm
from fastreid.utils.collect_env import collect_env_info
from fastreid.utils.env import seed_all_rng
from fastreid.utils.logger import setup_logger

from .run_folder import look_before

OURS = "dnreid_plugins"


def setup_logs(output_dir: str) -> None:
    """Log to the console and to ``<output_dir>/log.txt``; a second run in the same process gets its own file only.

    Details for debugging (level DEBUG, mainly tracebacks) go to the file only.
    """
    if output_dir and comm.is_main_process():
        look_before(output_dir)
    fastreid = logging.getLogger("fastreid")
    ours = logging.getLogger(OURS)
    if getattr(ours, "output_dir", None) != output_dir:
        for handler in list(fastreid.handlers):
            fastreid.removeHandler(handler)
        setup_logger.cache_clear()
        ours.output_dir = output_dir  # type: ignore[attr-defined]
    # The same call as in fast-reid's default_setup, so that its cache contains it.
    setup_logger(output_dir or None, distributed_rank=comm.get_rank())
    for handler in _screens():
        handler.setLevel(logging.INFO)
    ours.handlers = list(fastreid.handlers)
    ours.setLevel(logging.DEBUG)


def _screens() -> list[logging.Handler]:
    handlers = logging.getLogger("fastreid").handlers
    return [h for h in handlers if type(h) is logging.StreamHandler and h.stream is sys.stdout]


@contextlib.contextmanager
def quiet_screen() -> Iterator[None]:
    """Inside, only warnings are shown on the console; the log file gets everything."""
    handlers = _screens()
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


def log_start(cfg: Any, args: Any) -> None:
    """fast-reid's ``default_setup`` without a folder: the first lines of a log, the seed and the choice of kernels.

    ``config.yaml`` is not written: a refused resume must not replace the run's, and an evaluation has none.
    """
    logger = logging.getLogger("fastreid")
    logger.info("Rank of current process: %d. World size: %d", comm.get_rank(), comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if getattr(args, "config_file", ""):
        text = Path(args.config_file).read_text(errors="replace")
        logger.info("Contents of args.config_file=%s:\n%s", args.config_file, text)
    logger.info("Running with full config:\n%s", cfg)
    seed_all_rng(getattr(cfg, "SEED", None))
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
