"""One run at a time in a folder: a lock that says who holds it, and that nobody holds once its owner is dead."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import getpass
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Any

from .agreement import computed_once
from .files import one_at_a_time, temporary_name

FILE = "run.lock"
#: The owner renews its locks so often, and one of another machine that is older than the second is of a dead run.
RENEW_SECONDS, STALE_SECONDS = 60.0, 600.0
#: How long an owner may take between making the file and writing into it.
WRITE_SECONDS = 0.5

_HELD: dict[str, dict[str, Any]] = {}
_PROCESS = os.getpid()
_renewer = threading.Thread()


class FolderInUseError(ValueError):
    """Another run works in the folder; one sentence with who does and what to do."""


def lock_folder(folder: str) -> None:
    """Hold ``folder`` for this job until `unlock_folder` or the end of the process; "" needs no lock.

    All processes of the job call it, and the main one holds it. What this process holds it may take again.

    Raises:
        FolderInUseError: in all processes, while another run holds it.
    """
    if folder:
        computed_once(lambda: _lock(Path(folder)))


def unlock_folder(folder: str) -> None:
    """Let ``folder`` go; nothing where this process does not hold it."""
    mine = bool(folder) and _PROCESS == os.getpid()
    own = _HELD.pop(os.path.realpath(folder), None) if mine else None
    if own is not None and _read(Path(folder) / FILE) == own:
        (Path(folder) / FILE).unlink(missing_ok=True)


def _lock(folder: Path) -> None:
    key = os.path.realpath(folder)
    if key in _HELD and _PROCESS == os.getpid():
        return
    folder.mkdir(parents=True, exist_ok=True)
    file, own = folder / FILE, _owner()
    # Made exclusively, which every file system can; hard links, file locks and clocks are not asked for.
    with one_at_a_time(folder):
        while (descriptor := _made(file)) is None:
            _remove_if_dead(file)
        with open(descriptor, "w") as stream:
            stream.write(json.dumps(own))
    if _read(file) != own:
        raise FolderInUseError(
            f"Another run began in {folder} at the same moment; choose another OUTPUT_DIR."
        )
    _hold(key, own)


def _made(file: Path) -> int | None:
    try:
        return os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None


def _hold(key: str, own: dict[str, Any]) -> None:
    global _PROCESS, _renewer
    if _PROCESS != os.getpid():  # forked: the locks of the parent are not ours
        _HELD.clear()
        _PROCESS = os.getpid()
    _HELD[key] = own
    if not _renewer.is_alive():
        _renewer = threading.Thread(target=_renew, daemon=True)
        _renewer.start()


def _renew() -> None:
    while _HELD:
        time.sleep(RENEW_SECONDS)
        for folder in list(_HELD):
            # Its first byte anew: not every file system sets times on request, and the time is then that of its clock.
            with contextlib.suppress(OSError), (Path(folder) / FILE).open("r+b") as file:
                file.write(b"{")


@atexit.register
def _unlock_all() -> None:
    for folder in list(_HELD):
        unlock_folder(folder)


def _owner() -> dict[str, Any]:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no such user in a container
        user = str(os.getuid())
    return {
        "user": user,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "start": _start(os.getpid()),
        "processes": _processes(),
        "token": secrets.token_hex(8),
    }


def _processes() -> str:
    """Names those processes among which a process id means one of them: this boot of this machine, this container."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _start(pid: int) -> str:
    """When the process began, by its kernel; "" if it is dead or nobody's child waits for its end, "?" if unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return ""
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "?"


def _remove_if_dead(file: Path) -> None:
    """Remove the lock of a run that is dead.

    Raises:
        FolderInUseError: it lives.
    """
    other = _read(file)
    if other is None and file.exists():
        time.sleep(WRITE_SECONDS)
        other = _read(file)
    if other is not None and _lives(file, other):
        raise FolderInUseError(
            f"{file.parent} is in use by process {other.get('pid')} of {other.get('user')} on {other.get('host')} "
            f"since {other.get('since')}; choose another OUTPUT_DIR, wait for its end, or delete {file} if you know "
            "that it is dead."
        )
    # Only one of two that find it dead gets it; what was no longer the same is put back.
    aside = temporary_name(file)
    with contextlib.suppress(FileNotFoundError):
        file.rename(aside)
        if _read(aside) == other:
            aside.unlink()
        else:
            aside.rename(file)


def _lives(file: Path, other: dict[str, Any]) -> bool:
    if other.get("processes") == _processes():
        start = _start(int(other["pid"]))
        return start != "" and start in ("?", other.get("start"))
    probe = temporary_name(file)
    try:
        probe.touch()  # now by the clock of the file system, which is not that of this machine
        return probe.stat().st_mtime - file.stat().st_mtime < STALE_SECONDS
    except FileNotFoundError:
        return False
    finally:
        probe.unlink(missing_ok=True)


def _read(file: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    whole = isinstance(content, dict) and isinstance(content.get("pid"), int)
    return content if whole else None
