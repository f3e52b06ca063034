"""Joining and leaving a job: time limits, whose error it is, on which device."""

from __future__ import annotations

import datetime
from argparse import Namespace
from pathlib import Path
from typing import Any

import gloo_jobs
import pytest
import torch
from fastreid.utils import comm

from dnreid_plugins.runtime import group as distributed
from dnreid_plugins.runtime.config_files import ConfigError
from dnreid_plugins.runtime.devices import device_type, use_device
from dnreid_plugins.runtime.group import LostProcessError, Member, joined
from dnreid_plugins.runtime.launch import launch

LOST = [
    "NCCL error in: ../ProcessGroupNCCL.cpp:1331, remote process exited or there was a network error, NCCL 2.21",
    "NCCL communicator was aborted on rank 0.",
    "[Rank 0] Watchdog caught collective operation timeout: WorkNCCL(SeqNum=7) ran for 600000 milliseconds "
    "before timing out.",
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711",
    "[../gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation to complete",
    "Connection was likely closed. Did the remote server shutdown or crash?",
    "wait timeout after 300000ms, keys: /default_pg/0//cpu//0/0",
    "writev [127.0.0.1]:1: Broken pipe",
]
OWN = [
    "NCCL error in: ../NCCLUtils.hpp:275, unhandled cuda error: Cuda failure 2 'out of memory', NCCL 2.21",
    "CUDA error: the launch timed out and was terminated",
    "DataLoader timed out after 5 seconds",
    "[enforce fail at ../gloo/transport/tcp/pair.cc:456] op.preamble.length <= op.nbytes. 8 vs 4",
]


@pytest.mark.parametrize(("text", "lost"), [*((t, True) for t in LOST), *((t, False) for t in OWN)])
def test_only_the_loss_of_another_process_is_called_so(
    text: str, lost: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kind: type[BaseException] = LostProcessError if lost else RuntimeError
    with (
        pytest.raises(kind) as caught,
        joined(Member(0, 1, 0, 0, f"file://{tmp_path}/meet"), device="cpu"),
    ):
        raise RuntimeError(text)
    assert lost or str(caught.value) == text
    # What was cut from the sentence is in the log, with the place.
    assert (text in caplog.text and "Traceback" in caplog.text) == lost
    assert not torch.distributed.is_initialized()


class FakeNccl:
    """torch.distributed of one process as NCCL would have it; it remembers what was asked of it."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []
        self.destroyed = 0

    def init_process_group(self, backend: str, **options: Any) -> None:
        self.groups.append({"backend": backend, **options})

    def new_group(self, ranks: Any = None, **options: Any) -> Any:
        self.groups.append(options)
        return f"group {len(self.groups) - 1}"

    def destroy_process_group(self) -> None:
        self.destroyed += 1

    def get_backend(self) -> str:
        return "nccl"

    def get_world_size(self) -> int:
        return 1

    def is_initialized(self) -> bool:
        return True

    def all_gather_object(self, everybody: list[Any], own: Any) -> None:
        everybody[:] = [own]


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> FakeNccl:
    fake = FakeNccl()
    monkeypatch.setattr(distributed, "dist", fake)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    return fake


MEMBER = Member(0, 1, 0, 0, "env://")


def test_every_group_waits_as_long_as_the_job_says(nccl: FakeNccl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under NCCL the others wait for the label phase on a gloo group of its own."""
    monkeypatch.setenv("DNREID_TIMEOUT_MINUTES", "45")
    fastreids = comm._get_global_gloo_group
    with joined(MEMBER, device="cuda"):
        assert comm._get_global_gloo_group() == "group 2"
    assert comm._get_global_gloo_group is fastreids
    assert [group.get("backend") for group in nccl.groups] == ["nccl", None, "gloo"]
    assert {group["timeout"] for group in nccl.groups} == {datetime.timedelta(minutes=45)}
    assert nccl.destroyed == 1


@pytest.mark.parametrize("error", [ValueError("mine"), RuntimeError("Connection closed by peer")])
def test_a_process_with_an_error_does_not_wait_for_the_others(nccl: FakeNccl, error: Exception) -> None:
    with pytest.raises((ValueError, LostProcessError)), joined(MEMBER, device="cuda"):
        raise error
    assert nccl.destroyed == 0
    with pytest.raises(SystemExit), joined(MEMBER, device="cuda"):
        raise SystemExit(143)
    assert nccl.destroyed == 1


@pytest.mark.parametrize(
    ("config", "opts", "expected"),
    [
        ("", ["MODEL.DEVICE", "cpu"], "cpu"),
        ("", ["MODEL.DEVICE", "cpu", "A", "b", "MODEL.DEVICE", "cuda:1"], "cuda"),
        ("tests/tiny.yml", [], "cpu"),
        ("tests/tiny.yml", ["MODEL.DEVICE", "cuda"], "cuda"),
        ("configs/Base-CrossDomain.yml", [], "cuda" if torch.cuda.is_available() else "cpu"),
    ],
)
def test_the_device_is_read_from_the_command_line(config: str, opts: list[str], expected: str) -> None:
    path = str(Path(__file__).resolve().parents[2] / config) if config else ""
    assert device_type((Namespace(config_file=path, opts=opts),)) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [("MODEL: {DEVICE: gpu}\n", "cpu"), ("MODEL: []\n", None), ("MODEL: {DEVICE: 'cuda:1'}\n", "cuda")],
)
def test_a_device_nobody_knows_is_left_to_the_checks(
    content: str, expected: str | None, tmp_path: Path
) -> None:
    (tmp_path / "one.yml").write_text(content)
    expected = expected or ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_type((Namespace(config_file=str(tmp_path / "one.yml"), opts=[]),)) == expected


@pytest.mark.parametrize("content", ["MODEL: [\n", "- a\n- b\n", None])
def test_a_config_that_is_none_is_one_sentence(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "one.yml").write_text(content)
    with pytest.raises(ConfigError, match=r"one\.yml"):
        launch(gloo_jobs.ranks, 2, args=(Namespace(config_file=str(tmp_path / "one.yml"), opts=[]),))


def test_a_numbered_device_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for name in ("cpu", "cuda", "cuda:1"):
        use_device(name)
    assert chosen == [torch.device("cuda:1")]
