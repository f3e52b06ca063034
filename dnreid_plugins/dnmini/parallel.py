"""A process pool for rendering: results in order, the same for any number of workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from ..data.errors import DataError
from ..runtime.workers import end_with_parent

Result = TypeVar("Result")


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_processes(
    function: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], *, workers: int | None = None
) -> Generator[Result, None, None]:
    """``function(*task)`` for every task, in order. ``workers``: None = one per usable core, 1 = no new process.

    ``function`` must be a pure function of its arguments that touches NumPy and Pillow only: then forking is safe
    and spares every worker the import of torch.

    Raises:
        DataError: a worker was killed.
    """
    workers = workers if workers is not None else usable_cores()
    if workers < 1:
        raise ValueError(f"workers must be >= 1, got {workers}; leave it out for one per core")
    if workers == 1 or len(tasks) < 2:
        yield from (function(*task) for task in tasks)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
            yield from pool.map(function, *zip(*tasks, strict=True))
    except BrokenProcessPool:
        raise DataError(
            "A process that renders images was killed, for want of memory perhaps; the same command begins again"
        ) from None


def _begin() -> None:
    """Ctrl-C reaches every process; the one that started this says what there is to say, and it may be killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
