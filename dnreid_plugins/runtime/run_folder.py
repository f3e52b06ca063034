"""One folder, one run: files of an earlier run are moved aside, neither mixed with the new ones nor lost."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

#: Holds the name of the checkpoint that was written last.
POINTER = "last_checkpoint"
# What stages leave (`Stage.file_name`), and files that a run writes and a later run would append to or continue from.
STAGE_FILES = "stage*.pth"
TRACES = (
    "metrics.json",
    "health.jsonl",
    "clusters.csv",
    "results.json",
    POINTER,
    "bad_batch*.pt",
    "evaluations",
    "environment.json",
    "report.html",
    "queries.csv",
    "events.out.tfevents.*",
    "profile-*.json",
    STAGE_FILES,
)
# Checkpoints by their names: after an epoch or inside one, and those that always stay. Any other file is not ours.
PERIODIC = re.compile(r"model_(?:(?P<epoch>\d{4,})|iter(?P<iteration>\d{8,}))\.pth")
KEPT = re.compile(r"model_(?:final|best)\.pth")

# Files that belong to a run but are rewritten, or already open, when a fresh run moves the earlier one aside.
CONFIG, LOG = "config.yaml", "log.txt"


@dataclass(frozen=True)
class _Before:
    """The state of a folder before this process wrote anything: the config, and the length of the log in bytes."""

    config: bytes | None
    log_bytes: int


_BEFORE: dict[Path, _Before] = {}


def look_before(folder: str | Path) -> None:
    """Call this before ``config.yaml`` or ``log.txt`` of ``folder`` change; only the first call counts."""
    folder = Path(folder).absolute()
    if folder not in _BEFORE:
        config, log = folder / CONFIG, folder / LOG
        _BEFORE[folder] = _Before(
            config.read_bytes() if config.is_file() else None, log.stat().st_size if log.is_file() else 0
        )


def forget_before(folder: str | Path) -> None:
    """The run continues with the files in ``folder``; the next run of this process records the state again."""
    _BEFORE.pop(Path(folder).absolute(), None)


def set_aside(folder: str | Path, *, keep: tuple[str, ...] = ()) -> Path | None:
    """Move the files of an earlier run in ``folder`` to ``folder/previous-<n>``; returns that path, or None.

    Its ``config.yaml`` and its part of ``log.txt`` go with them. Call it before a fresh run opens its own files and
    after ``MODEL.WEIGHTS`` (which may lie there) is read. ``keep`` are patterns of file names that stay.
    """
    folder = Path(folder)
    look_before(folder)
    before = _BEFORE.pop(folder.absolute())
    traces = {path for pattern in TRACES for path in folder.glob(pattern)}
    traces |= {p for p in folder.glob("model_*.pth") if PERIODIC.fullmatch(p.name) or KEPT.fullmatch(p.name)}
    found = sorted(path for path in traces if not any(path.match(pattern) for pattern in keep))
    if not found and before.config is None:
        return None
    number = 1
    while (target := folder / f"previous-{number:03d}").exists():
        number += 1
    target.mkdir()
    for path in found:
        path.rename(target / path.name)
    if before.config is not None:
        (target / CONFIG).write_bytes(before.config)
    if before.log_bytes:
        _split_log(folder / LOG, target / LOG, before.log_bytes)
    logger.warning("%s held an earlier run; its files are now in %s.", folder, target)
    return target


def _split_log(log: Path, old: Path, length: int) -> None:
    """Move the first ``length`` bytes to ``old``. The file itself stays, since the log is open for appending."""
    with log.open("r+b") as file:
        old.write_bytes(file.read(length))
        rest = file.read()
        file.seek(0)
        file.write(rest)
        file.truncate()


def last_checkpoint(folder: str | Path) -> Path:
    """The checkpoint that the run in ``folder`` wrote last: the one that its pointer names, else ``model_final.pth``.

    Raises:
        ValueError: ``folder`` is no run's, or its run has not written any.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        what = (
            "has no config.yaml, so it is not the folder of a run" if folder.is_dir() else "is not a folder"
        )
        raise ValueError(f"{folder} {what}; name the OUTPUT_DIR of a run.")
    pointer = folder / POINTER
    named = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    for name in (named, "model_final.pth"):
        if name and Path(name).name == name and (folder / name).is_file():
            return folder / name
    raise ValueError(
        f"The run in {folder} has no checkpoint yet; wait for its first one, or continue it with --resume."
    )
