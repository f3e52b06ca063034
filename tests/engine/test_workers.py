"""A loader's worker that starts with a fresh interpreter works; one that dies ends the run with a sentence."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from test_scripts import ROOT, run
from torch.utils.data import Dataset

from dnreid_plugins import workers
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.loaders import SentenceLoader
from dnreid_plugins.engine import cli


@pytest.mark.slow
def test_an_unmodified_script_with_spawned_workers(tiny_root: Path) -> None:
    script, config = ROOT / "tests/engine/spawn_script.py", ROOT / "tests/tiny.yml"
    done = run(["-m", "dnreid_plugins", str(script), "spawn", str(config)], tiny_root)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "images: 48" in done.stdout
    assert "loading PyTorch" in done.stderr and done.stderr.count("loading PyTorch") == 1


class DiesOnArrival(Dataset[Any]):
    """Ends the process that unpickles it, before that has read the megabyte that follows."""

    def __init__(self) -> None:
        self.payload = os.urandom(1 << 20)

    def __len__(self) -> int:
        return 4

    def __reduce__(self) -> Any:
        return os._exit, (7,), self.payload


class KilledWhileReading(Dataset[Any]):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_dies_before_it_begins_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python itself would wait for ever; a limit of this test would not even be looked at."""
    monkeypatch.setattr(workers, "_FIRST", [])  # dying needs no plug-ins, and loading them takes seconds
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)
    try:
        with pytest.raises(DataError, match="A process that reads images exited unexpectedly; .*NUM_WORKERS"):
            list(SentenceLoader(DiesOnArrival(), num_workers=1, multiprocessing_context="spawn"))
    finally:
        signal.alarm(0)


def test_a_worker_that_is_killed_ends_the_run_with_a_sentence() -> None:
    with pytest.raises(SystemExit, match="^error: A process that reads images"), cli.sentences():
        list(SentenceLoader(KilledWhileReading(), num_workers=1, multiprocessing_context="fork"))


def test_torch_may_say_so_in_the_middle_of_a_step() -> None:
    """Its handler of SIGCHLD raises wherever the main process is; other errors are not ours to explain."""
    killed = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    with (
        pytest.raises(SystemExit, match="^error: A process .* was killed by signal: Killed;"),
        cli.sentences(),
    ):
        raise killed
    with pytest.raises(RuntimeError, match="shapes"), cli.sentences():
        raise RuntimeError("shapes differ")


def test_what_new_processes_call_is_listed_once() -> None:
    before = list(workers._FIRST)
    workers.also_call(os.getpid)
    workers.also_call(os.getpid)
    try:
        assert [one.call for one in workers._FIRST] == [*(one.call for one in before), (os.getpid, ())]
    finally:
        workers._FIRST[:] = before
