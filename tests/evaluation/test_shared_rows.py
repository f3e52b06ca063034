"""Features of several processes: one matrix on each machine, the same rows in all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dnreid_plugins.evaluation import shared_rows
from dnreid_plugins.evaluation.shared_rows import SharedRows, can_share
from dnreid_plugins.runtime.group import Member, joined

ROWS, COLUMNS = 23, 5
#: The first two processes are those of one machine.
MACHINES = (0, 0, 1)


def expected() -> torch.Tensor:
    return torch.arange(ROWS * COLUMNS, dtype=torch.float32).view(ROWS, COLUMNS) / 7


def _process(rank: int, folder: str, without: int | None) -> None:
    torch.set_num_threads(1)
    machine = MACHINES[rank]
    place = Member(rank, len(MACHINES), int(rank == 1), machine, f"file://{folder}/rendezvous")
    if machine == without:
        shared_rows.SHARED_MEMORY = Path(folder) / "absent"
    shared_rows._ROWS_PER_EXCHANGE = 7
    with joined(place, device="cpu"):
        found = SharedRows(ROWS, COLUMNS if rank != 1 else 0)  # the second one had no image
        own = torch.arange(ROWS) % 2 == rank // 2
        if rank != 1:
            found.matrix[own] = expected()[own]
        rows = found.join()
        answer = {"rows": rows.clone(), "shared": found.shared}
        dist.barrier()
        if rank == 0:
            rows[0, 0] = 99.0
        dist.barrier()
        answer["sees rank 0"] = float(rows[0, 0]) == 99.0
        empty = SharedRows(0, 0)
        answer["empty"] = tuple(empty.join().shape)
    torch.save(answer, f"{folder}/{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("without", [None, 0, 1])
def test_a_machine_has_one_matrix_and_every_process_all_rows(tmp_path: Path, without: int | None) -> None:
    """A machine without shared memory makes every process keep its own copy."""
    before = set(shared_rows.SHARED_MEMORY.glob("dnreid-*"))
    mp.spawn(_process, (str(tmp_path), without), nprocs=len(MACHINES))
    sharing = without is None and can_share(4 * ROWS * COLUMNS)
    for rank in range(len(MACHINES)):
        answer = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(answer["rows"], expected(), rtol=0, atol=0)
        assert answer["shared"] == sharing and answer["empty"] == (0, 0)
        assert answer["sees rank 0"] == (rank == 0 or (sharing and rank == 1))
    assert set(shared_rows.SHARED_MEMORY.glob("dnreid-*")) == before, "nothing is left behind"


def test_no_room_is_no_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_rows, "SHARED_MEMORY", tmp_path)
    assert can_share(10) and not can_share(1 << 60)
    assert shared_rows._file_of(1 << 60) == "" and not list(tmp_path.iterdir())
    path = Path(shared_rows._file_of(40))
    assert path.parent == tmp_path and path.read_bytes() == bytes(40)
    monkeypatch.setattr(shared_rows, "SHARED_MEMORY", tmp_path / "absent")
    assert not can_share(10) and shared_rows._file_of(40) == ""


def test_one_process_has_its_own() -> None:
    alone = SharedRows(4, 2)
    alone.matrix[1] = 3.0
    assert not alone.shared and alone.join()[1].tolist() == [3.0, 3.0] and float(alone.join().sum()) == 6.0
