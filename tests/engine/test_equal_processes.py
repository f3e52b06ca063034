"""The processes of a job have one config, one code and one data set, or all end with what differs."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import gloo_jobs
import numpy as np
import pytest
from PIL import Image

from dnreid_plugins.runtime.run_lock import FolderInUseError, lock_folder, unlock_folder


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, tiny_root: Path) -> Iterator[gloo_jobs.Pool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTREID_DATASETS", str(tiny_root))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("DNREID_TIMEOUT_MINUTES", "1")
        pool = gloo_jobs.Pool(tmp_path_factory.mktemp("meet"), size=2)
    yield pool
    pool.close()


def another_image(root: Path) -> None:
    os.replace(root / "dn348/day/00001/001.png", root / "dn348/day/00001/0015.png")
    listing = root / "dn348/train_test_split/train_list_day.txt"
    listing.write_text(listing.read_text().replace("00001/001.png", "00001/0015.png"))


def black(root: Path) -> None:
    for path in (root / "dn348").rglob("*.png"):
        Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(path)


def one_more(root: Path) -> None:
    shutil.copy(root / "dn348/day/00001/001.png", root / "dn348/day/00001/0015.png")
    with (root / "dn348/train_test_split/train_list_day.txt").open("a") as file:
        file.write("00001/0015.png\n")


def scored(root: Path) -> None:
    Image.fromarray(np.zeros((24, 24, 3), np.uint8)).save(root / "dn348/night/00007/003.png")


DATA: list[tuple[str, Callable[[Path], None], str]] = [
    (
        "another image at equal count",
        another_image,
        "different training images: process 1 .*day/00001/001.png is gone",
    ),
    ("all pixels black", black, "different training images: process 1 .*day/00000/000.png has size"),
    (
        "one image more",
        one_more,
        "different training images: process 1 .*day/00001/0015.png is new .*73 images now, 72",
    ),
    ("another test image", scored, "different DN348: process 1 .*night/00007/003.png has size"),
]
CONFIG = [
    (["SEED", 5], r"SEED is 5 there and 0 here"),
    (["INPUT.FLIP.ENABLED", False], r"INPUT.FLIP.ENABLED is False there and True here"),
    (["DATALOADER.ITERS_PER_EPOCH", 3], r"DATALOADER.ITERS_PER_EPOCH is 3 there"),
]


def both_say(answers: list[object], sentence: str) -> None:
    for answer in answers:
        assert isinstance(answer, ValueError), answer
        assert re.search(f"^The processes of the job .*{sentence}", str(answer)), answer


@pytest.mark.parametrize(
    ("change", "sentence"),
    [pytest.param(c, s, id=n, marks=pytest.mark.attack("processes that differ", n)) for n, c, s in DATA],
)
def test_other_data_in_one_process_ends_all(
    pool: gloo_jobs.Pool, tiny_root: Path, tmp_path: Path, change: Callable[[Path], None], sentence: str
) -> None:
    shutil.copytree(tiny_root, tmp_path / "data")
    change(tmp_path / "data")
    options = [*gloo_jobs.OPTIONS, "OUTPUT_DIR", str(tmp_path / "out")]
    both_say(pool.run(2, "train_apart", options, [], str(tmp_path / "data")), sentence)


@pytest.mark.parametrize(
    ("apart", "sentence"),
    [pytest.param(a, s, id=a[0], marks=pytest.mark.attack("processes that differ", a[0])) for a, s in CONFIG],
)
def test_another_config_in_one_process_ends_all(
    pool: gloo_jobs.Pool, tmp_path: Path, apart: list[object], sentence: str
) -> None:
    options = [*gloo_jobs.OPTIONS, "OUTPUT_DIR", str(tmp_path / "out")]
    both_say(
        pool.run(2, "train_apart", options, apart, ""), f"were started differently: process 1 .*{sentence}"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.attack("two runs in one folder", "a job of two processes where another run works")
def test_all_processes_of_a_job_are_refused_a_folder_in_use(pool: gloo_jobs.Pool, tmp_path: Path) -> None:
    lock_folder(str(tmp_path))
    try:
        for answer in pool.run(2, "train", [*gloo_jobs.OPTIONS, "OUTPUT_DIR", str(tmp_path)]):
            assert isinstance(answer, FolderInUseError)
    finally:
        unlock_folder(str(tmp_path))


# ------------------------------------------------------------------ another number of processes


def cut(folder: Path) -> list[object]:
    """Options of a run with a checkpoint after every step."""
    often = ["SOLVER.CHECKPOINT_MINUTES", 1e-9, "SOLVER.CHECKPOINT_KEEP", 99]
    return [*gloo_jobs.OPTIONS, *often, "OUTPUT_DIR", str(folder)]


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.attack(
    "another number of processes", "a run of 1 is resumed by 2, one of 2 by 1: labels and metrics as before"
)
def test_a_resume_by_another_number_of_processes(pool: gloo_jobs.Pool, tmp_path: Path, before: int) -> None:
    """As exact as a whole run of the other number: losses to 1e-5, prototypes to 1e-4; the log says so."""
    whole = pool.run(before, "train", cut(tmp_path))[0]
    assert len(whole["losses"]) == 20
    later = [f for f in tmp_path.glob("model_iter*.pth") if f.stem > "model_iter00000013"]
    for path in (tmp_path / "model_final.pth", tmp_path / "last_checkpoint", *later):
        path.unlink()
    every = pool.run(3 - before, "train", cut(tmp_path), True)
    rest = {
        **whole,
        "losses": whole["losses"][13:],
        "rows": whole["rows"][13:],
        "labels": whole["labels"][1:],
    }
    assert gloo_jobs.shortfalls(rest, every) == []
    said = (tmp_path / "log.txt").read_text()
    assert said.count(f"is of a job of {before} processes, this one has {3 - before}") == 1


@pytest.mark.attack("another number of processes", "the batch cannot be shared among them: a sentence")
def test_a_batch_that_cannot_be_shared(pool: gloo_jobs.Pool, tmp_path: Path) -> None:
    odd = [*cut(tmp_path), "SOLVER.IMS_PER_BATCH", 4, "DATALOADER.ITERS_PER_EPOCH", 2, "SOLVER.MAX_EPOCH", 1]
    odd += ["SOLVER.STEPS", ()]
    (whole,) = pool.run(1, "train", odd)
    assert len(whole["losses"]) == 2
    for path in (tmp_path / "model_final.pth", tmp_path / "last_checkpoint"):
        path.unlink()
    for answer in pool.run(2, "train", odd, True):
        assert isinstance(answer, ValueError), answer
        assert "cannot be divided among 2 processes" in str(answer)
