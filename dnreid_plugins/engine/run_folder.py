"""One folder, one run: what an earlier run left behind is set aside, neither mixed in nor lost."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

# What stage 1 of Bridging Day and Night leaves in the folder.
STAGE_1 = "stage1.pth"
# What a run writes and a later run would append to or go on from. ``log.txt`` is open by then and stays.
TRACES = (
    "metrics.json",
    "health.jsonl",
    "clusters.csv",
    "results.json",
    "last_checkpoint",
    "model_*.pth",
    "events.out.tfevents.*",
    "profile-*.json",
    STAGE_1,
)


def set_aside(folder: str | Path, *, keep: tuple[str, ...] = ()) -> Path | None:
    """Move the traces of an earlier run in ``folder`` to ``folder/previous-<n>``; returns that, or None.

    Call it before a fresh run opens its own files and after ``MODEL.WEIGHTS`` (which may lie there) is read.
    ``keep`` names files that stay.
    """
    folder = Path(folder)
    found = sorted({path for pattern in TRACES for path in folder.glob(pattern) if path.name not in keep})
    if not found:
        return None
    number = 1
    while (target := folder / f"previous-{number:03d}").exists():
        number += 1
    target.mkdir()
    for path in found:
        path.rename(target / path.name)
    logger.warning("%s held an earlier run; its %d files are now in %s.", folder, len(found), target)
    return target
