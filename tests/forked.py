"""Our command line in a forked process, so that limits, signals and kills can be tried in a second each."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dnreid_plugins import cli

TINY = ["--config-file", str(Path(__file__).parent / "tiny.yml")]


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (negative: the signal that killed it) and all it said."""

    code: int
    said: str


def run_forked(
    words: list[str], folder: Path, *, before: Callable[[], object] = lambda: None, seconds: float = 300.0
) -> Ended:
    """``cli.main(words)`` after ``before()`` in a forked process; AssertionError when it does not end in time."""
    text = folder / "said.txt"
    child = os.fork()
    if child == 0:
        _child(words, text, before)
    end = time.monotonic() + seconds
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"the process hangs, it said:\n{text.read_text()[-3000:]}")
        time.sleep(0.02)
    return Ended(os.waitstatus_to_exitcode(found[1]), text.read_text(errors="replace"))


def forked(work: Callable[[], object]) -> int:
    """Starts a process that does ``work`` and no more; its exit code is 0 if that came to its end, else 1."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def _child(words: list[str], text: Path, before: Callable[[], object]) -> None:
    """Never returns; what pytest has set up in this process must not run twice."""
    # Log files of tests before this one would count against the limits that are tried.
    for logger in [logging.getLogger(), *map(logging.getLogger, list(logging.root.manager.loggerDict))]:
        logger.handlers = [one for one in logger.handlers if not isinstance(one, logging.StreamHandler)]
    descriptor = os.open(text, os.O_CREAT | os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    code = 0
    try:
        before()
        cli.main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            sys.stderr.write(f"{error.code}\n")
    except BaseException:
        traceback.print_exc()
        code = 99
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
