from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_helpers import resumed
from torch import Tensor, nn

from dnreid_plugins.engine import checkpoint_files as module
from dnreid_plugins.engine.checkpoint_files import AtomicCheckpointer
from dnreid_plugins.runtime.weight_files import WeightFileError, read_weight_file


class Model(nn.Module):
    def __init__(self, classes: int = 3, width: int = 4) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width))
        self.heads = nn.Linear(width, classes)


class Dual(nn.Module):
    """Named as a dual-stream encoder names its parts: the first layer once per domain."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Module()
        first.day, first.night = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.backbone = nn.Module()
        self.backbone.backbone = nn.Module()
        self.backbone.backbone.add_module("0", first)
        self.backbone.backbone.add_module("1", nn.BatchNorm2d(4))
        self.heads = nn.Linear(4, 3)


def equal(a: nn.Module, b: nn.Module) -> bool:
    own, other = a.state_dict(), b.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)


def trained(model: nn.Module, steps: int = 3) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        features = model.backbone(torch.randn(4, 3, 2, 2)).mean((2, 3))  # type: ignore[operator]
        model.heads(features).square().sum().backward()  # type: ignore[operator]
        optimizer.step()
    return optimizer


def same_tree(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_tree(a[key], b[key]) for key in a)
    return bool(a == b)


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def save_epochs(checkpointer: AtomicCheckpointer, count: int) -> None:
    for epoch in range(count):
        checkpointer.save(f"model_{epoch:04d}", epoch=epoch)
        time.sleep(0.002)  # the order of age must not hang on the clock's resolution


def test_model_optimizer_and_extras_come_back(tmp_path: Path) -> None:
    model = Model()
    optimizer = trained(model)
    AtomicCheckpointer(model, str(tmp_path)).save(
        "model_0002", optimizer=optimizer.state_dict(), epoch=2, metric=np.float32(0.5)
    )
    fresh = Model()
    checkpointer = AtomicCheckpointer(fresh, str(tmp_path))
    content = resumed(checkpointer)
    assert same_tree(optimizer.state_dict(), content.pop("optimizer"))
    assert content == {"epoch": 2, "metric": 0.5}
    assert equal(model, fresh)
    assert checkpointer.current == str(tmp_path / "model_0002.pth")
    assert files(tmp_path) == ["last_checkpoint", "model_0002.pth"]


def test_the_newest_are_kept_and_final_and_best_always(tmp_path: Path) -> None:
    checkpointer = AtomicCheckpointer(Model(), str(tmp_path), keep=2)
    checkpointer.save("model_best")
    save_epochs(checkpointer, 4)
    checkpointer.save("model_final")
    assert files(tmp_path) == [
        "last_checkpoint",
        "model_0002.pth",
        "model_0003.pth",
        "model_best.pth",
        "model_final.pth",
    ]
    assert checkpointer.resume_candidates()[0] == (tmp_path / "model_final.pth")


def test_the_best_is_never_what_a_resume_goes_on_from(tmp_path: Path) -> None:
    checkpointer = AtomicCheckpointer(Model(), str(tmp_path))
    checkpointer.save("model_best")
    assert not checkpointer.resume_candidates()
    checkpointer.save("model_0001")
    checkpointer.save("model_best")
    assert checkpointer.resume_candidates()[0] == (tmp_path / "model_0001.pth")


def test_files_of_an_older_run_in_the_folder_do_not_push_out_fresh_ones(tmp_path: Path) -> None:
    save_epochs(AtomicCheckpointer(Model(), str(tmp_path)), 6)
    AtomicCheckpointer(Model(), str(tmp_path), keep=2).save("model_0000")
    assert [path.name for path in AtomicCheckpointer(Model(), str(tmp_path)).periodic()] == [
        "model_0005.pth",
        "model_0000.pth",
    ]


@pytest.mark.parametrize("damage", ["truncated", "empty", "bit", "missing", "pickle"])
def test_a_damaged_newest_file_falls_back_to_the_one_before(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model()
    checkpointer = AtomicCheckpointer(model, str(tmp_path), keep=3)
    save_epochs(checkpointer, 2)
    newest = tmp_path / "model_0001.pth"
    content = bytearray(newest.read_bytes())
    if damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        newest.write_bytes(b"")
    elif damage == "bit":
        content[content.index(model.heads.weight.detach().numpy().tobytes())] ^= 1
        newest.write_bytes(content)
    elif damage == "missing":
        newest.unlink()
    else:
        torch.save({"model": {}, "path": Path("x")}, newest)
    fresh = Model()
    with caplog.at_level(logging.WARNING):
        extra = resumed(AtomicCheckpointer(fresh, str(tmp_path)))
    assert extra == {"epoch": 0}
    assert equal(model, fresh)
    assert ("Falling back" in caplog.text) == (damage != "missing")


@pytest.mark.parametrize("pointer", [b"", b"\xff\xfe", b"model_9999.pth", b"../elsewhere.pth", None])
def test_a_broken_pointer_does_not_matter(tmp_path: Path, pointer: bytes | None) -> None:
    checkpointer = AtomicCheckpointer(Model(), str(tmp_path))
    save_epochs(checkpointer, 2)
    if pointer is None:
        (tmp_path / "last_checkpoint").unlink()
    else:
        (tmp_path / "last_checkpoint").write_bytes(pointer)
    assert checkpointer.resume_candidates()[0] == (tmp_path / "model_0001.pth")


def test_all_damaged_is_one_sentence(tmp_path: Path) -> None:
    checkpointer = AtomicCheckpointer(Model(), str(tmp_path))
    save_epochs(checkpointer, 2)
    for path in tmp_path.glob("*.pth"):
        path.write_bytes(b"PK")
    with pytest.raises(WeightFileError, match="None of the 2 checkpoints in .* can be read"):
        resumed(checkpointer)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed")]
)
def test_a_full_disk_keeps_the_old_files_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    checkpointer = AtomicCheckpointer(Model(), str(tmp_path), keep=1)
    checkpointer.save("model_0000", epoch=0)
    before = (tmp_path / "model_0000.pth").read_bytes()

    def save(data: Any, file: Any) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(module.torch, "save", save)
    with caplog.at_level(logging.ERROR):
        checkpointer.save("model_0001", epoch=1)
        checkpointer.save("model_0000", epoch=1)
    assert "could not be written" in caplog.text
    assert files(tmp_path) == ["last_checkpoint", "model_0000.pth"]
    assert (tmp_path / "model_0000.pth").read_bytes() == before
    with pytest.raises(OSError, match="all older checkpoints are intact"):
        checkpointer.save("model_final")


# A forked child must not touch torch's thread pool, so everything is made before the fork.
def _save_beyond_the_limit(checkpointer: AtomicCheckpointer, big: Tensor) -> None:
    checkpointer.save("model_0000")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, unlimited[1]))
    try:
        checkpointer.save("model_0001", big=big)
    finally:  # what else the child writes, a coverage report for one, is not on trial
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)


def _save_for_ever(checkpointer: AtomicCheckpointer) -> None:
    for epoch in range(10**6):
        checkpointer.save(f"model_{epoch:04d}", epoch=epoch)


def forked(function: Any, *args: Any) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=function, args=args, daemon=True)
    process.start()
    return process  # type: ignore[return-value]


def test_a_file_size_limit_of_the_system_is_survived(tmp_path: Path) -> None:
    """A real short write: the process may write 20 kB per file, the second checkpoint has 400 kB."""
    checkpointer = AtomicCheckpointer(nn.Linear(10, 10), str(tmp_path))
    process = forked(_save_beyond_the_limit, checkpointer, torch.zeros(100000))
    process.join(timeout=300)
    assert process.exitcode == 0
    assert files(tmp_path) == ["last_checkpoint", "model_0000.pth"]
    read_weight_file(tmp_path / "model_0000.pth")


@pytest.mark.parametrize("moment", [0.0, 0.011, 0.023, 0.05])
def test_kill_while_saving_loses_nothing(tmp_path: Path, moment: float) -> None:
    process = forked(_save_for_ever, AtomicCheckpointer(nn.Linear(300, 300), str(tmp_path)))
    while not (tmp_path / "last_checkpoint").exists():
        assert process.is_alive()
        time.sleep(0.001)
    time.sleep(moment)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    checkpointer = AtomicCheckpointer(nn.Linear(300, 300), str(tmp_path))
    assert not list(tmp_path.glob(".*"))
    saved = [int(path.stem[-4:]) for path in checkpointer.periodic()]
    # The kill may fall between the rename of a file and that of the pointer, which then names the one before.
    assert resumed(checkpointer)["epoch"] in (max(saved), max(saved) - 1)


def test_values_that_could_not_be_loaded_again_are_refused_before_writing(tmp_path: Path) -> None:
    checkpointer = AtomicCheckpointer(Model(), str(tmp_path))
    with pytest.raises(TypeError, match=r"model_0000\.extra is a numpy\.ndarray"):
        checkpointer.save("model_0000", extra=np.zeros(3))
    assert files(tmp_path) == []


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_weights_in_any_wrapping_load(tmp_path: Path, prefix: str, wrapper: str | None) -> None:
    model = Model()
    trained(model)
    state = {prefix + key: value for key, value in model.state_dict().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "w.pth")
    fresh = Model()
    AtomicCheckpointer(fresh).load(str(tmp_path / "w.pth"))
    assert equal(model, fresh)


def test_another_number_of_classes_is_a_warning_another_backbone_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model()
    trained(model)
    torch.save({"model": model.state_dict()}, tmp_path / "w.pth")
    more_classes = Model(classes=7)
    with caplog.at_level(logging.WARNING):
        AtomicCheckpointer(more_classes).load(str(tmp_path / "w.pth"))
    assert "heads.weight is (3, 4) in the file, (7, 4) here; it keeps its initial values" in caplog.text
    assert equal(more_classes.backbone, model.backbone)
    with pytest.raises(WeightFileError, match=r"backbone\.0\.bias is \(4,\) in the file, \(8,\) here"):
        AtomicCheckpointer(Model(width=8)).load(str(tmp_path / "w.pth"))


def test_a_file_that_fits_nowhere_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    torch.save({"model": {"other.weight": torch.zeros(3)}}, tmp_path / "w.pth")
    model = Model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightFileError, match=r"does not fit the model: 6 of 9 tensors are missing"):
        AtomicCheckpointer(model).load(str(tmp_path / "w.pth"))
    assert same_tree(before, dict(model.state_dict()))


def test_both_streams_start_from_the_weights_of_a_plain_encoder(tmp_path: Path) -> None:
    plain = Model()
    trained(plain)
    torch.save({"model": plain.state_dict()}, tmp_path / "w.pth")
    dual = Dual()
    AtomicCheckpointer(dual).load(str(tmp_path / "w.pth"))
    own, stored = dual.state_dict(), plain.state_dict()
    for stream in ("day", "night"):
        assert torch.equal(own[f"backbone.backbone.0.{stream}.weight"], stored["backbone.0.weight"])
    assert torch.equal(own["backbone.backbone.1.running_mean"], stored["backbone.1.running_mean"])
    assert torch.equal(own["heads.weight"], stored["heads.weight"])


def test_a_resume_demands_everything(tmp_path: Path) -> None:
    model = Model()
    AtomicCheckpointer(model, str(tmp_path)).save("model_0000")
    with pytest.raises(WeightFileError, match=r"does not fit the model: 2 of 9"):
        resumed(AtomicCheckpointer(Model(classes=7), str(tmp_path)))


def test_no_folder_no_file_and_other_processes_do_not_write(tmp_path: Path) -> None:
    AtomicCheckpointer(Model(), "").save("model_0000")
    AtomicCheckpointer(Model(), str(tmp_path), save_to_disk=False).save("model_0000")
    assert files(tmp_path) == []
    with pytest.raises(ValueError, match="SOLVER.CHECKPOINT_KEEP is 0"):
        AtomicCheckpointer(Model(), str(tmp_path), keep=0)
