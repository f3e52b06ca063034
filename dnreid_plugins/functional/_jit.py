"""How the compiled loops are built (lazily, cached on disk where possible) and run on several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

import numba
import torch
from numpy.typing import NDArray

Result = TypeVar("Result")


Function = TypeVar("Function", bound=Callable[..., Any])

Array = NDArray[Any]
"""An argument of a compiled loop; each docstring says what is in it."""


def jit(function: Function) -> Function:
    """Compile ``function`` at its first call (never at import) and release the interpreter lock while it runs."""
    return _compiled(function, fastmath=False)


def jit_vector_sum(function: Function) -> Function:
    """:func:`jit` that may reorder sums, so that they use vector instructions."""
    return _compiled(function, fastmath={"reassoc", "contract", "nsz"})


def _compiled(function: Function, *, fastmath: bool | set[str]) -> Function:
    """The machine code is cached on disk, next to the source or in the user's cache folder.

    Where neither can be written, numba refuses to cache; then each process compiles for itself.
    """
    try:
        compiled = numba.njit(nogil=True, cache=True, fastmath=fastmath)(function)
    except RuntimeError:
        compiled = numba.njit(nogil=True, fastmath=fastmath)(function)
    return cast(Function, compiled)


def map_rows(work: Callable[[int, int], Result], num_rows: int, *, chunk: int) -> list[Result]:
    """``work(start, stop)`` for consecutive row ranges, on as many threads as torch uses; results in order.

    Our own threads instead of an OpenMP team: kernels release the interpreter lock, nothing spins between
    calls, and a data loader may fork afterwards.
    """
    ranges = [(start, min(start + chunk, num_rows)) for start in range(0, num_rows, chunk)]
    workers = min(torch.get_num_threads(), len(ranges))
    if workers <= 1:
        return [work(start, stop) for start, stop in ranges]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda bounds: work(*bounds), ranges))
