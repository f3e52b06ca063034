"""A long run needs at its end what it needed at its start: memory, tensors, open files, threads, checkpoints."""

from __future__ import annotations

import gc
import logging
import os
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from fastreid.config import CfgNode
from fastreid.engine.train_loop import HookBase
from ledger import record
from torch._subclasses.fake_tensor import FakeTensor

from dnreid_plugins.engine.trainer import CrossDomainTrainer

PROC = Path("/proc/self")
#: Half of a run may need so many bytes more than its first half: pages that the allocator leaves half empty.
SLACK = 4 * 2**20


class Needs(NamedTuple):
    """What a process holds at the end of an epoch."""

    resident_bytes: int
    tensor_bytes: int
    tensors: int
    open_files: int
    threads: int
    checkpoints: int


def needs(folder: str) -> Needs:
    gc.collect()
    # Not isinstance, which would wake lazy objects of torch; a fake tensor (of an earlier export) has no data.
    found = [
        one
        for one in gc.get_objects()
        if issubclass(type(one), torch.Tensor) and not issubclass(type(one), FakeTensor)
    ]
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in found}
    pages = int((PROC / "statm").read_text().split()[1])
    return Needs(
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        tensor_bytes=sum(storages.values()),
        tensors=len(found),
        open_files=len(list((PROC / "fd").iterdir())),
        threads=threading.active_count(),
        checkpoints=len(list(Path(folder).glob("*.pth"))),
    )


class Watch(HookBase):
    """Takes `Needs` at the end of every epoch, after all other hooks."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.seen: list[Needs] = []

    def after_epoch(self) -> None:
        self.seen.append(needs(self.folder))


def soak(cfg: CfgNode, epochs: int) -> list[Needs]:
    """Train ``epochs`` epochs of two steps with everything that a run can do at an epoch's end."""
    cfg.MODEL.LOSSES.NAME = ["ClusterNCE", "MAA", "DGM"]
    cfg.MODEL.LOSSES.DGM.WEIGHT = ((1, 0.3),)
    cfg.MODEL.LOSSES.DGM.ON_EMPTY = "keep_last"
    cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.STEPS = epochs, []
    cfg.SOLVER.CHECKPOINT_MINUTES = 1e-9
    cfg.TEST.EVAL_PERIOD = 1
    cfg.DATALOADER.ITERS_PER_EPOCH = 2
    trainer = CrossDomainTrainer(cfg)
    watch = Watch(cfg.OUTPUT_DIR)
    trainer.register_hooks([watch])
    trainer.resume_or_load()
    trainer.train()
    assert len(watch.seen) == epochs
    return watch.seen


def grown(early: list[Needs], late: list[Needs]) -> dict[str, tuple[int, int]]:
    """What grew: the most of any early epoch against the least of any late one, the final epoch left out."""
    found = {}
    for name in Needs._fields:
        before = max(getattr(one, name) for one in early)
        after = min(getattr(one, name) for one in late[:-1])
        if after > before + (SLACK if name == "resident_bytes" else 0):
            found[name] = (before, after)
    return found


@pytest.mark.skipif(not PROC.is_dir(), reason="reads Linux's /proc")
def test_ten_epochs_hold_no_more_than_five(tiny_cfg: CfgNode) -> None:
    seen = soak(tiny_cfg, 10)
    assert grown(seen[2:5], seen[5:]) == {}


@pytest.mark.skipif(not PROC.is_dir(), reason="reads Linux's /proc")
@pytest.mark.stress
@pytest.mark.parametrize("workers", [0, 1])
def test_two_hundred_epochs(tiny_cfg: CfgNode, workers: int) -> None:
    tiny_cfg.DATALOADER.NUM_WORKERS = workers
    seen = soak(tiny_cfg, 200)
    found = grown(seen[20:100], seen[100:])
    more = (seen[-1].resident_bytes - seen[99].resident_bytes) / 2**20
    logging.getLogger(__name__).info(f"resident memory of epoch 200 against 100: {more:+.1f} MiB")
    record(
        "soak",
        f"200 epochs, {workers} loader workers",
        tried=1,
        survived=int(not found),
        lost=", ".join(f"{name} {a} -> {b}" for name, (a, b) in found.items()),
    )
    assert found == {}


def test_growth_is_noticed() -> None:
    base = Needs(2**30, 1000, 10, 7, 1, 2)
    early, late = [base] * 3, [base] * 4
    assert grown(early, late) == {}
    assert grown(early, [base._replace(resident_bytes=2**30 + SLACK)] * 4) == {}
    for name in Needs._fields:
        more = base._replace(**{name: getattr(base, name) + SLACK + 1})
        assert list(grown(early, [more] * 4)) == [name]
        assert grown(early, [more, base, more, more]) == {}
