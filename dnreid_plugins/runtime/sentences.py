"""An error that the user can fix is one sentence and exit code 1; any other one is a bug and keeps its traceback."""

from __future__ import annotations

import contextlib
import difflib
import errno
import logging
import re
import sys
from collections.abc import Iterator, Sequence

from .signals import ending_with_a_sentence

#: From which similarity on a name is a guess at another one.
SIMILAR_ENOUGH = 0.5

logger = logging.getLogger(__name__)


class ExpectedError(RuntimeError):
    """A run cannot go on, through no fault of the code; the message says why."""


# Errors that a user can cause and fix, including a full disk or missing permissions (OSError).
USER_ERRORS = (ValueError, OSError, MemoryError, ExpectedError, FloatingPointError)


@contextlib.contextmanager
def sentences(*, ours_only: bool = False) -> Iterator[None]:
    """Inside, an error that the user can fix ends the process with code 1 and one sentence; the log file gets its
    traceback.

    ``ours_only``: errors raised by other code than ours, e.g. the user's script, are not changed.
    """
    try:
        with ending_with_a_sentence():
            yield
    except (*USER_ERRORS, RuntimeError) as error:
        expected = error if isinstance(error, USER_ERRORS) else lost_worker(error) or out_of_memory(error)
        if expected is None or (ours_only and expected is error and not _is_ours(error)):
            raise
        logger.debug("traceback of the error", exc_info=True)
        sys.exit(f"error: {sentence_of(expected)}")


def _is_ours(error: BaseException) -> bool:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__", "").startswith("dnreid_plugins.")


def lost_worker(error: BaseException) -> ValueError | None:
    """The message if ``error`` is torch's report that a loader's worker is gone; None for any other error.

    torch checks its workers every 5 seconds while it waits for a batch.
    """
    found = re.search(
        r"DataLoader worker \(pid.*?\) (exited unexpectedly|is killed by signal: \w+)", str(error)
    )
    if not isinstance(error, RuntimeError) or found is None:
        return None
    return ValueError(
        f"A process that reads images {found[1].replace('is killed', 'was killed')}; its own message, if it had one, "
        "stands above. If memory ran out, lower DATALOADER.NUM_WORKERS; with 0 the images are read without it."
    )


def out_of_memory(error: BaseException) -> MemoryError | None:
    """torch's and the system's words for a lack of memory as Python's own; None for any other error."""
    text = next(iter(str(error).splitlines()), "")
    words = ("out of memory", "can't allocate memory", "not enough memory", "can't start new thread")
    return MemoryError(text[:200]) if any(word in text for word in words) else None


def sentence_of(error: BaseException) -> str:
    """What to tell the user; an error of the system's own gets the file, where it is known, and a way out."""
    if isinstance(error, MemoryError):
        reason = str(error) or "Python could get no more"
        return (
            f"Memory ran out ({reason}); lower SOLVER.IMS_PER_BATCH, TEST.IMS_PER_BATCH or DATALOADER.NUM_WORKERS, or "
            "give the process more (ulimit -v)."
        )
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            "Too many files are open; raise the limit with `ulimit -n 4096` or lower DATALOADER.NUM_WORKERS."
        )
    if error.errno == errno.ENOMEM:
        return sentence_of(MemoryError(error.strerror))
    where = "A file" if error.filename is None else str(error.filename)
    return (
        f"{where} cannot be read or written ({error.strerror}); correct the path, or free some space and continue "
        "with --resume."
    )


class ConfigError(ValueError):
    """A config file, key or value cannot be used; one sentence that says what to do."""


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known name most similar to ``name``, ignoring case; None if there is no similar one."""
    by_case = {item.lower(): item for item in known}
    found = difflib.get_close_matches(name.lower(), list(by_case), n=1, cutoff=SIMILAR_ENOUGH)
    return by_case[found[0]] if found else None
