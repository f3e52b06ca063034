"""Processes with a fresh interpreter load the plug-ins first, and one that dies at its start is detected.

Under the start methods ``spawn`` and ``forkserver`` (macOS, Windows, Python >= 3.14) a loader's worker runs the main
script once more and unpickles its data set. Both import fast-reid, which fails unless `compat` was imported before.
"""

from __future__ import annotations

import functools
import importlib
import multiprocessing
import os
import select
import signal
import threading
from collections.abc import Callable, Iterable
from multiprocessing import spawn
from typing import Any

#: Seconds between two checks of a process that does not read what it is sent.
LOOK_EVERY = 0.2


class _Call:
    """Unpickling this calls ``function(*args)``."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


_FIRST = [_Call(importlib.import_module, "dnreid_plugins")]


def also_call(function: Callable[..., Any], *args: Any) -> None:
    """New processes call ``function(*args)`` too, after they have loaded the plug-ins."""
    if all(one.call != (function, args) for one in _FIRST):
        _FIRST.append(_Call(function, *args))


def install() -> None:
    """Reach every process that this one starts, whichever library starts it.

    `multiprocessing` first sends a dict that tells the process how to prepare; our calls are part of it, so that they
    run before the main script and the task are loaded. Coverage tools enter new processes in the same way.
    """
    spawn.get_preparation_data = _with_plugins(spawn.get_preparation_data)  # type: ignore[assignment]
    if os.name == "posix":
        from multiprocessing.popen_spawn_posix import Popen

        Popen._launch = _watched(Popen._launch)  # type: ignore[attr-defined]


def _with_plugins(get_preparation_data: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    @functools.wraps(get_preparation_data)
    def get(name: str) -> dict[str, Any]:
        data = get_preparation_data(name)
        # The package may be in a folder that only this process's sys.path contains.
        path = _Call(spawn.prepare, {"sys_path": data["sys_path"]})
        return {"dnreid_plugins": [path, *_FIRST], **data}

    return get


def end_with_parent() -> None:
    """Send this process SIGTERM as soon as the one that started it is gone, killed even."""

    def watch(parent: Any) -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=watch, args=(parent,), daemon=True).start()


class _Descriptors(list[int]):
    """File descriptors that a new process inherits. `Popen._launch` adds its pipe ends; the reading end is kept."""

    reading_end: int | None = None

    def extend(self, ends: Iterable[int]) -> None:
        ends = list(ends)
        self.reading_end = os.dup(ends[0])
        super().extend(ends)


def _watched(launch: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """`Popen._launch` of Python waits forever if the new process dies before it has read everything it is sent."""

    @functools.wraps(launch)
    def watched(self: Any, process: Any) -> None:
        self._fds = _Descriptors(self._fds)
        launched = threading.Event()
        threading.Thread(target=_read_for_the_dead, args=(self, launched), daemon=True).start()
        try:
            launch(self, process)
        finally:
            launched.set()

    return watched


def _read_for_the_dead(popen: Any, launched: threading.Event) -> None:
    """Empty the pipe of a process that died, so that its parent continues and finds it dead."""
    while not launched.wait(LOOK_EVERY):
        if getattr(popen, "pid", None) is not None and popen.poll() is not None:
            while select.select([popen._fds.reading_end], [], [], LOOK_EVERY)[0]:
                os.read(popen._fds.reading_end, 1 << 16)
    if popen._fds.reading_end is not None:
        os.close(popen._fds.reading_end)
