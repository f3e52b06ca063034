"""How the compiled loops are built (lazily, cached on disk where possible) and run on several threads."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import torch
from numba.core.caching import CompileResultCacheImpl, FunctionCache
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
    """The machine code is kept on disk, see `_Cache`; where that cannot be, each process compiles for itself."""
    compiled: Any = numba.njit(nogil=True, fastmath=fastmath)(function)
    with contextlib.suppress(RuntimeError):  # numba's word for: there is no folder to write to
        compiled._cache = _Cache(function)
    return cast(Function, compiled)


class _Places(CompileResultCacheImpl):
    """``$NUMBA_CACHE_DIR`` or the user's cache folder; never beside the source, which may lie in site-packages."""

    _locator_classes = [
        place for place in CompileResultCacheImpl._locator_classes if "InTree" not in place.__name__
    ]


class _Cache(FunctionCache):
    """numba's cache; a damaged file or a full disk costs the time of compiling and a warning, not the run."""

    _impl_class = _Places

    def _index_key(self, *args: Any) -> Any:
        """numba looks at the file of a loop alone, but the loops that it calls from other files are part of it."""
        return (super()._index_key(*args), loops_digest(Path(__file__).parent))

    def load_overload(self, *args: Any) -> Any:
        try:
            return super().load_overload(*args)
        except Exception as error:  # unpickling damaged bytes may raise almost anything
            self._warn(f"holds damaged files ({type(error).__name__}); the loops are compiled anew")
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        try:
            super().save_overload(*args)
        except Exception as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            way_out = "free some space there or set NUMBA_CACHE_DIR to another folder"
            self._warn(f"cannot be written ({reason}), so each process compiles for itself; {way_out}")

    def _warn(self, text: str) -> None:
        # Python shows the same text once, so it names the folder of all functions.
        folder = Path(self.cache_path).parent
        warnings.warn(f"{folder}, where compiled loops are kept, {text}.", RuntimeWarning, stacklevel=2)


@functools.cache
def loops_digest(folder: Path) -> str:
    """Changes with any file below ``folder`` that has compiled loops."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        content = path.read_bytes()
        if b"jit" in content:
            digest.update(content)
    return digest.hexdigest()


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


def side_by_side(
    work: Callable[..., Result], tasks: Sequence[tuple[Any, ...]], seen: Callable[[Result], None]
) -> None:
    """``seen(work(*task))`` for each task, ``work`` on as many threads as torch uses; its operators use one in each.

    OpenMP's threads spin for milliseconds after an operator that used them all, and loops that follow on threads of
    our own share the processors with them: neighbours of 50,000 x 256 took longer on two threads than on one.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(tasks))
    if workers <= 1:
        for task in tasks:
            seen(work(*task))
        return
    torch.set_num_threads(1)  # new threads take this number, too
    pool = ThreadPoolExecutor(workers)
    try:
        for result in pool.map(lambda task: work(*task), tasks):
            seen(result)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)
