"""What may happen to DNMini while it is rendered and afterwards: kills, a second writer, changed files."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import forked

from dnreid_plugins.data.errors import DataError
from dnreid_plugins.dnmini import write as write_module
from dnreid_plugins.dnmini import write_dnmini
from dnreid_plugins.dnmini.parallel import map_in_processes
from dnreid_plugins.dnmini.write import MANIFEST, Parameters
from dnreid_plugins.runtime.files import remove_leftovers, temporary_folder, write_atomically

AREA = "rendering DNMini"
SMALL = {"seed": 3, "num_train_ids": 3, "num_test_ids": 2, "images_per_domain": 2}
LONG = {"seed": 3, "num_train_ids": 100, "num_test_ids": 60, "images_per_domain": 20}


def wait_for(condition: Callable[[], object], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.attack(
    AREA, "kill -9 of the main process: its workers end, the next writer clears what was left"
)
def test_a_killed_writer_leaves_no_worker_and_its_folder_is_cleared(tmp_path: Path) -> None:
    root = tmp_path / "dnmini"
    writer = forked(lambda: write_dnmini(root, **LONG, workers=2))
    wait_for(lambda: next(tmp_path.glob(".dnmini.*.part/*/*/*.jpg"), None))
    workers = children_of(writer)
    assert len(workers) >= 2
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    wait_for(lambda: not any(lives(worker) for worker in workers))
    assert list(tmp_path.glob(".dnmini.*"))
    write_dnmini(root, **SMALL, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["dnmini"]


@pytest.mark.attack(AREA, "kill -9 of a worker: a sentence")
def test_a_killed_worker_is_a_sentence() -> None:
    with pytest.raises(DataError, match="A process that renders images was killed"):
        list(map_in_processes(_kill, [(9,), (9,), (9,)], workers=2))


def _kill(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.attack(AREA, "two containers with the same process id write the same set")
def test_two_writers_of_one_process_id_leave_each_other_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all, inside = write_module._write_all, []

    def overtaken(folder: Path, parameters: Parameters, *, workers: int | None) -> None:
        if not inside:
            inside.append(folder)
            write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
            assert folder.is_dir()
            (tmp_path / "dnmini").rename(tmp_path / "other")
        write_all(folder, parameters, workers=workers)

    monkeypatch.setattr(write_module, "_write_all", overtaken)
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    names = [{path.relative_to(root) for path in root.rglob("*")} for root in tmp_path.iterdir()]
    assert len(names) == 2 and names[0] == names[1]


@pytest.mark.attack(AREA, "an image or list of the finished set is changed: refused at its first use")
@pytest.mark.parametrize("change", ["other bytes", "gone", "list", "swapped"])
def test_a_changed_set_is_refused(tmp_path: Path, change: str) -> None:
    root = tmp_path / "dnmini"
    write_dnmini(root, **SMALL, workers=1)
    write_dnmini(root, **SMALL, workers=1)
    write_module._verify.cache_clear()  # as in a new process
    image, other = root / "day/00001/000.jpg", root / "day/00001/001.jpg"
    if change == "other bytes":
        image.write_bytes(image.read_bytes()[:-1])
    elif change == "gone":
        image.unlink()
    elif change == "swapped":
        content = image.read_bytes()
        image.write_bytes(other.read_bytes())
        other.write_bytes(content)
    else:
        (root / "train_test_split/test_list_day.txt").write_text("00001/000.jpg\n")
    with pytest.raises(DataError, match="is not DNMini as it was rendered: .*; delete the folder"):
        write_dnmini(root, **SMALL, workers=1)


def test_the_set_is_read_once_in_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    monkeypatch.setattr(write_module, "_digest_of_identity", lambda *_: pytest.fail("read again"))
    write_dnmini(tmp_path / "dnmini", **SMALL, workers=1)
    assert (tmp_path / "dnmini" / MANIFEST).exists()


@pytest.mark.attack(AREA, "a living writer's folder is not taken for a dead one's")
def test_the_folder_of_a_living_writer_stays(tmp_path: Path) -> None:
    with temporary_folder(tmp_path / "set") as first:
        with temporary_folder(tmp_path / "set") as second:
            assert first.is_dir() and second.is_dir() and first != second
        assert first.is_dir() and not second.exists()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.attack("files", "two containers with the same process id write the same file")
def test_two_writers_of_a_file_do_not_share_a_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def write(file) -> None:
        write_atomically(path, lambda inner: inner.write(b"of the second"))
        assert path.read_bytes() == b"of the second"
        remove_leftovers(tmp_path)
        file.write(b"of the first")

    write_atomically(path, write)
    assert path.read_bytes() == b"of the first" and [p.name for p in tmp_path.iterdir()] == ["file"]
