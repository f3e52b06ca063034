"""How the few compiled loops are built (lazily, kept on disk where possible) and spread over threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numba
import torch

Result = TypeVar("Result")


def jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile ``function`` at its first call (never at import) and let other threads run meanwhile.

    The machine code is kept on disk next to the source or in the user's cache folder. Where neither can be
    written, numba refuses to cache and the function is compiled once per process instead.
    """
    try:
        compiled: Callable[..., Any] = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        compiled = numba.njit(nogil=True)(function)
    return compiled


def map_rows(work: Callable[[int, int], Result], num_rows: int, *, chunk: int) -> list[Result]:
    """``work(start, stop)`` for consecutive row ranges, on as many threads as torch uses; results in order.

    Threads of our own and not an OpenMP team: kernels release the interpreter lock, nothing spins between
    calls, and a data loader may fork afterwards.
    """
    ranges = [(start, min(start + chunk, num_rows)) for start in range(0, num_rows, chunk)]
    workers = min(torch.get_num_threads(), len(ranges))
    if workers <= 1:
        return [work(start, stop) for start, stop in ranges]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda bounds: work(*bounds), ranges))
