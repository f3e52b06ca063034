"""The error of this package: something on disk is wrong, in one sentence."""

from __future__ import annotations

import re


class DataError(ValueError):
    """A missing root, list or image, an unreadable image, a malformed line. The message says what to do."""


def lost_worker(error: BaseException) -> DataError | None:
    """The message if ``error`` is torch's report that a loader's worker is gone; None for any other error.

    torch checks its workers every 5 seconds while it waits for a batch.
    """
    found = re.search(
        r"DataLoader worker \(pid.*?\) (exited unexpectedly|is killed by signal: \w+)", str(error)
    )
    if not isinstance(error, RuntimeError) or found is None:
        return None
    return DataError(
        f"A process that reads images {found[1].replace('is killed', 'was killed')}; its own message, if it had one, "
        "stands above. If memory ran out, lower DATALOADER.NUM_WORKERS; with 0 the images are read without it."
    )
