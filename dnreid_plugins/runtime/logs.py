"""One console and one log file for fast-reid's messages and ours."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from fastreid.utils import comm
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
