"""A loader's worker that starts with a fresh interpreter works; one that dies ends the run with a sentence."""

from __future__ import annotations

import os
import pickle
import signal
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from test_scripts import ROOT, run
from torch.utils.data import Dataset

from dnreid_plugins import cli
from dnreid_plugins.data.errors import DataError
from dnreid_plugins.data.loaders import SentenceLoader
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime import workers


@pytest.mark.slow
def test_an_unmodified_script_with_spawned_workers(tiny_root: Path) -> None:
    script, config = ROOT / "tests/engine/spawn_script.py", ROOT / "tests/tiny.yml"
    done = run(["-m", "dnreid_plugins", str(script), "spawn", str(config)], tiny_root)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "images: 48" in done.stdout
    assert "loading PyTorch" not in done.stderr, "that is for a terminal"


class DiesOnArrival(Dataset[Any]):
    """Ends the process that unpickles it, before that has read the megabyte that follows."""

    def __init__(self) -> None:
        self.payload = os.urandom(1 << 20)

    def __len__(self) -> int:
        return 4

    def __reduce__(self) -> Any:
        return os._exit, (7,), self.payload


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


@pytest.mark.parametrize("supervised", [False, True])
def test_what_a_loader_sends_its_workers_can_be_pickled(tiny_cfg: CfgNode, supervised: bool) -> None:
    if supervised:
        tiny_cfg.MODEL.META_ARCHITECTURE, tiny_cfg.MODEL.HEADS.NAME = "Baseline", "EmbeddingHead"
        tiny_cfg.MODEL.LOSSES.NAME = ("CrossEntropyLoss",)
    trainer = CrossDomainTrainer(tiny_cfg)
    loaders = [trainer.step_trainer.data_loader]
    if trainer.train_data is not None:
        loaders.append(trainer.train_data.inference_loader)
    for loader in loaders:
        dataset, collate = pickle.loads(ForkingPickler.dumps((loader.dataset, loader.collate_fn)))
        batch = collate(dataset.__getitems__([0, 1]))
        assert batch["images"].shape == (2, 3, 24, 24)


def test_what_new_processes_call_is_listed_once() -> None:
    before = list(workers._FIRST)
    workers.also_call(os.getpid)
    workers.also_call(os.getpid)
    try:
        assert [one.call for one in workers._FIRST] == [*(one.call for one in before), (os.getpid, ())]
    finally:
        workers._FIRST[:] = before
