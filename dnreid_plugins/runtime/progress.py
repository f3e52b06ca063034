"""Progress of a long computation: a bar on a terminal, or a log line now and then; nothing for a short one."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track

logger = logging.getLogger(__name__)

#: Seconds until the first line and between two lines; no one should wait more than five without a message.
EVERY = 4.0

Thing = TypeVar("Thing")


def duration(seconds: float) -> str:
    """In words: seconds below 90, minutes below an hour and a half, else hours."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class ProgressLine:
    """A ``progress(done, total)`` callback that logs share, seconds spent and seconds to go.

    Lines are at least `EVERY` seconds apart, the first one that long after construction; there is none for the last
    step, since the next message follows at once. A log line instead of a bar also reaches the log file, and with
    several processes only the main one shows it.

    Args:
        text: what is computed; the beginning of each line.
        clock: seconds, monotonic.
    """

    def __init__(self, text: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.text = text
        self.clock = clock
        self.start = self.last = clock()

    def __call__(self, done: int, total: int) -> None:
        now = self.clock()
        if done >= total or done < 1 or now - self.last < EVERY:
            return
        self.last = now
        spent = now - self.start
        left = spent * (total - done) / done
        logger.info("%s: %d %% after %.0f s, about %.0f s to go", self.text, 100 * done // total, spent, left)


def with_progress(things: Iterable[Thing], text: str, total: int) -> Iterator[Thing]:
    """``things``, ``total`` of them: on a terminal with a bar and the time left, else with a `ProgressLine`."""
    if sys.stderr.isatty():
        yield from track(things, text, total, transient=True, console=Console(stderr=True))
        return
    line = ProgressLine(text)
    for done, thing in enumerate(things, start=1):
        yield thing
        line(done, total)
