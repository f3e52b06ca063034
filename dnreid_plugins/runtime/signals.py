"""Graceful shutdown on SIGTERM and Ctrl-C: the run saves its state first and ends with a message."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds for a line of the log to be written.
WAIT = 1.0


class Stopped(SystemExit):
    """The run was asked to shut down; the exit code is 128 + the signal's number, as in a shell."""


@contextlib.contextmanager
def ending_with_a_sentence() -> Iterator[None]:
    """SIGTERM or Ctrl-C inside, where no `StopSignals` is at work, ends with `Stopped` after one line in the log."""
    process, in_main = os.getpid(), threading.current_thread() is threading.main_thread()

    def interrupt(number: int, frame: Any) -> None:
        if os.getpid() != process:  # inherited by a process that was forked
            os._exit(128 + number)
        raise KeyboardInterrupt(number)

    before = signal.signal(signal.SIGTERM, interrupt) if in_main else None
    try:
        yield
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        text = "Ended by %s while nothing was trained, so nothing is lost; the same command begins again."
        logger.warning(text, _name(number))
        raise Stopped(128 + number) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


class StopSignals:
    """Records the first SIGTERM or SIGINT of this process; the owner checks `wanted` at safe points.

    The same signal a second time, or any signal while there is nothing to lose, ends the process at once.

    Args:
        nothing_to_lose: True while everything that was computed is on disk (or does not need to be saved).
        something_kept: True once there is a state on disk to resume from.
    """

    def __init__(
        self, nothing_to_lose: Callable[[], bool], something_kept: Callable[[], bool] = lambda: True
    ) -> None:
        self.nothing_to_lose = nothing_to_lose
        self.something_kept = something_kept
        self.wanted = 0
        self._before: dict[int, Any] = {}
        self._process = 0

    def install(self) -> None:
        """Install the handlers; outside the main thread, where Python does not allow that, nothing happens."""
        if threading.current_thread() is threading.main_thread():
            self.wanted, self._process = 0, os.getpid()
            self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def remove(self) -> None:
        """Restore the previous handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _receive(self, number: int, frame: Any) -> None:
        if os.getpid() != self._process:
            # A loader's worker inherits this handler. It also receives Ctrl-C, but its owner ends it later.
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return
        again, self.wanted = self.wanted == number, number
        if again or self.nothing_to_lose():
            self.leave(
                "received twice, so nothing more is saved" if again else "there was nothing new to save"
            )
        _say(f"{_name(number)}: continuing to the next point at which the state can be saved.")

    def leave(self, what: str) -> None:
        """Raise `Stopped` with ``what`` about the state; where another process got the signal, as by SIGTERM."""
        number = self.wanted or signal.SIGTERM
        way_on = (
            "Continue with --resume"
            if self.something_kept()
            else "There is no saved state to resume from; start it again"
        )
        _say(f"Ended by {_name(number)}: {what}. {way_on}.")
        raise Stopped(128 + number)


def _say(text: str) -> None:
    """Log ``text`` from another thread: a handler may have interrupted this one inside a write to the same stream.

    Then the line comes as soon as this thread goes on, which is not waited for.
    """
    thread = threading.Thread(target=logger.warning, args=("%s", text))
    thread.start()
    thread.join(WAIT)


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
