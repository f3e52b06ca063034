"""One run at a time in a folder, whoever died in it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from dnreid_plugins.runtime import run_lock
from dnreid_plugins.runtime.run_lock import FILE, FolderInUseError, lock_folder, unlock_folder


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Any]:
    """Another process that holds the folder."""
    process = get_context("fork").Process(target=hold, args=(str(tmp_path),), daemon=True)
    process.start()
    while run_lock._read(tmp_path / FILE) is None:
        assert process.is_alive()
    yield process
    process.kill()
    process.join()


def hold(folder: str) -> None:
    lock_folder(folder)
    time.sleep(600)


def written(folder: Path, **changes: Any) -> None:
    """The lock of some other run."""
    owner = {**run_lock._owner(), **changes}
    (folder / FILE).write_text(json.dumps(owner))


@pytest.mark.attack("two runs in one folder", "the first lives; is killed with -9; leaves a zombie")
def test_a_living_owner_is_named_and_a_dead_one_forgotten(tmp_path: Path, other: Any) -> None:
    sentence = (
        rf"{tmp_path} is in use by process {other.pid} of \S+ on \S+ since 20.*choose another OUTPUT_DIR"
    )
    for _ in range(2):
        with pytest.raises(FolderInUseError, match=sentence):
            lock_folder(str(tmp_path))
    os.kill(other.pid, signal.SIGKILL)
    while run_lock._start(other.pid):  # nobody has waited for it yet
        time.sleep(0.01)
    lock_folder(str(tmp_path))
    lock_folder(str(tmp_path))  # ours already
    assert json.loads((tmp_path / FILE).read_text())["pid"] == os.getpid()
    unlock_folder(str(tmp_path))
    unlock_folder(str(tmp_path))
    unlock_folder("")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack("two runs in one folder", "the process id of a dead owner belongs to another process now")
def test_a_process_id_that_came_round_again_holds_nothing(tmp_path: Path) -> None:
    written(tmp_path, start="1")
    lock_folder(str(tmp_path))
    unlock_folder(str(tmp_path))


@pytest.mark.attack("two runs in one folder", "the owner is on another machine or in another container")
def test_a_lock_of_another_machine_counts_while_it_is_renewed(tmp_path: Path) -> None:
    written(tmp_path, processes="another boot", host="elsewhere")
    with pytest.raises(FolderInUseError, match="on elsewhere since"):
        lock_folder(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    old = time.time() - 2 * run_lock.STALE_SECONDS
    os.utime(tmp_path / FILE, (old, old))
    lock_folder(str(tmp_path))
    unlock_folder(str(tmp_path))


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": "x"}'])
@pytest.mark.attack("two runs in one folder", "killed while it wrote the lock")
def test_half_a_lock_is_no_lock(tmp_path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "WRITE_SECONDS", 0.01)
    (tmp_path / FILE).write_text(content)
    lock_folder(str(tmp_path))
    unlock_folder(str(tmp_path))


@pytest.mark.attack("two runs in one folder", "a file system that sets no times: the lock stays renewed")
def test_a_held_lock_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "RENEW_SECONDS", 0.01)
    monkeypatch.setattr(run_lock, "_renewer", run_lock.threading.Thread())
    lock_folder(str(tmp_path))
    content = (tmp_path / FILE).read_text()
    os.utime(tmp_path / FILE, (1.0, 1.0))
    monkeypatch.setattr(os, "utime", None)
    for _ in range(500):
        if (tmp_path / FILE).stat().st_mtime > 1.0:
            break
        time.sleep(0.01)
    assert (tmp_path / FILE).stat().st_mtime > 1.0 and (tmp_path / FILE).read_text() == content
    unlock_folder(str(tmp_path))
    assert not (tmp_path / FILE).exists()


def race(folder: str, results: Any, begin: Any, end: Any) -> None:
    begin.wait(300)
    try:
        lock_folder(folder)
        results.put("held")
        end.wait(300)
    except FolderInUseError:
        results.put("refused")


@pytest.mark.attack("two runs in one folder", "8 begin at once where a dead one left its lock, no hard links")
def test_of_many_that_begin_at_once_one_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", None)
    context = get_context("fork")
    for _ in range(3):
        written(tmp_path, start="1")
        results = context.Queue()
        begin, end = context.Barrier(8), context.Event()
        args = (str(tmp_path), results, begin, end)
        processes = [context.Process(target=race, args=args) for _ in range(8)]
        for process in processes:
            process.start()
        said = sorted(results.get(timeout=300) for _ in processes)
        end.set()
        for process in processes:
            process.join()
        assert said == ["held", *["refused"] * 7]
