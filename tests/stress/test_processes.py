"""Several processes: the results of one, and when one is lost the others end with a sentence and lose nothing."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ledger import record

TESTS = Path(__file__).resolve().parents[1]
sys.path.append(str(TESTS / "engine"))

import gloo_jobs  # noqa: E402
from gloo_jobs import OPTIONS, shortfalls  # noqa: E402

pytestmark = pytest.mark.stress

METHODS: dict[str, list[Any]] = {
    "Base": ["MODEL.LOSSES.NAME", ["ClusterNCE"]],
    "CIA": ["MODEL.LOSSES.DGM.ON_EMPTY", "keep_last"],
    "CIA, paired batches": ["DATALOADER.PAIRED", True],
    "the baselines": [
        *["MODEL.LOSSES.NAME", ["ClusterNCE", "PGM", "CMA", "MMD", "MarginMMD"]],
        *["MODEL.LOSSES.PGM.WEIGHT", [[1, 0.3]], "MODEL.LOSSES.CMA.WEIGHT", [[1, 1.0]]],
    ],
    "both stages of Bridging": [
        *["tiny_bridging.yml", "MODEL.LOSSES.NAME"],
        ["ClusterNCE", "PrototypeClassifier", "ImageText", "CPML"],
    ],
}
#: Seconds within which the others must have ended; most of it is the start of Python on a busy machine.
LIMIT = 400
#: (processes, place, which visit of it, rank)
LOSSES = [
    (2, "label phase", 1, 0),
    (2, "label phase", 2, 1),
    (2, "iteration", 1, 1),
    (2, "iteration", 7, 0),
    (3, "iteration", 5, 2),
    (3, "checkpoint", 2, 0),
    (3, "checkpoint", 2, 1),
    (2, "evaluation", 1, 1),
]


@pytest.fixture(scope="module")
def environment(tiny_root: Path) -> dict[str, str]:
    path = os.pathsep.join(str(folder) for folder in (TESTS / "stress", TESTS, TESTS.parent))
    return {**os.environ, "FASTREID_DATASETS": str(tiny_root), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Iterator[gloo_jobs.Pool]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("FASTREID_DATASETS", "OMP_NUM_THREADS"):
            patch.setenv(name, environment[name])
        pool = gloo_jobs.Pool(tmp_path_factory.mktemp("meet"))
    yield pool
    pool.close()


@pytest.mark.parametrize("method", METHODS)
def test_one_two_and_three_processes_compute_the_same(
    pool: gloo_jobs.Pool, tmp_path: Path, method: str
) -> None:
    """Twenty steps: labels and metrics equal, losses to 1e-5, the ranks of a run bit for bit."""
    lost: list[str] = []
    alone = None
    for world in (1, 2, 3):
        opts = [*OPTIONS, *METHODS[method], "OUTPUT_DIR", str(tmp_path / str(world))]
        every = pool.run(world, "train", opts)
        alone = alone or every[0]
        lost += [f"{world} processes: {text}" for text in shortfalls(alone, every)]
    fault = f"{method}: 20 steps in 1, 2 and 3 gloo processes"
    record("several processes", fault, tried=3, survived=3 - min(len(lost), 3), lost="; ".join(lost))
    assert lost == []


# ------------------------------------------------------------------ one is lost


def job(environment: dict[str, str], folder: Path, world: int, function: str, *args: Any, **more: str) -> Any:
    """Run ``lost_jobs.<function>`` in ``world`` processes as a user's script would; ``subprocess.run``'s answer."""
    script = folder / "job.py"
    script.write_text(
        "import json, sys\nimport dnreid_plugins, lost_jobs\nfrom dnreid_plugins.runtime.launch import launch\n"
        "if __name__ == '__main__':\n"
        "    world, function, args = json.loads(sys.argv[1])\n"
        "    launch(getattr(lost_jobs, function), world, args=tuple(args))\n"
    )
    return subprocess.run(
        [sys.executable, str(script), json.dumps([world, function, args])],
        env={**environment, **more},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def options(folder: Path) -> list[Any]:
    return [*OPTIONS, "DATALOADER.ITERS_PER_EPOCH", 4, "TEST.EVAL_PERIOD", 1, "OUTPUT_DIR", str(folder)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def test_a_killed_process_ends_the_others_and_a_resume_ends_as_the_undisturbed_run(
    environment: dict[str, str], tmp_path: Path
) -> None:
    whole: dict[int, dict[str, torch.Tensor]] = {}
    lost: list[str] = []
    seconds = []
    for world, place, visit, rank in LOSSES:
        if world not in whole:
            folder = tmp_path / f"whole{world}"
            done = job(environment, tmp_path, world, "train", options(folder), False)
            assert done.returncode == 0, done.stderr[-3000:]
            whole[world] = weights(folder)
        folder, note = tmp_path / f"{world}{place}{visit}{rank}", tmp_path / "note"
        opts = options(folder)
        fault = f"{place} {visit}, process {rank} of {world}"
        try:
            done = job(
                environment,
                tmp_path,
                world,
                "train_until_lost",
                opts,
                place,
                visit,
                rank,
                signal.SIGKILL,
                str(note),
            )
        except subprocess.TimeoutExpired:
            lost.append(f"{fault}: the others did not end")
            continue
        seconds.append(time.time() - float(note.read_text()))
        sentence = f"error: process {rank} of {world} was killed by SIGKILL; the others were ended."
        if done.returncode == 0 or sentence not in done.stderr:
            lost.append(f"{fault}: code {done.returncode}, {done.stderr[-300:]}")
        done = job(environment, tmp_path, world, "train", opts, True)
        got = weights(folder) if done.returncode == 0 else {}
        if [
            key for key, value in whole[world].items() if not torch.equal(value, got.get(key, value * 0 - 1))
        ]:
            lost.append(f"{fault}: the resumed run differs; {done.stderr[-300:]}")
    logging.getLogger(__name__).info(f"the others ended after at most {max(seconds, default=0):.0f} s")
    text = "kill -9 of one of 2 or 3; sentence, the others end, exact resume"
    tried = len(LOSSES)
    record(
        "several processes", text, tried=tried, survived=tried - min(len(lost), tried), lost="; ".join(lost)
    )
    assert lost == []


def test_a_process_that_hangs_ends_the_others_after_the_time_limit(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """SIGSTOP: the connection stays open and nothing comes; ``DNREID_TIMEOUT_MINUTES`` decides."""
    lost: list[str] = []
    trials = [(rank, random.Random(rank).randint(1, 6)) for rank in (0, 1)]
    for rank, visit in trials:
        opts, note = options(tmp_path / str(rank)), tmp_path / "note"
        arguments = (opts, "iteration", visit, rank, signal.SIGSTOP, str(note))
        try:
            done = job(environment, tmp_path, 2, "train_until_lost", *arguments, DNREID_TIMEOUT_MINUTES="1")
        except subprocess.TimeoutExpired:
            lost.append(f"process {rank}: no end")
            continue
        if done.returncode == 0 or "lost another process of the job" not in done.stderr:
            lost.append(f"process {rank}: code {done.returncode}, {done.stderr[-300:]}")
    tried = len(trials)
    record(
        "several processes",
        "one of 2 stands still (SIGSTOP), time limit 1 minute",
        tried=tried,
        survived=tried - len(lost),
        lost="; ".join(lost),
    )
    assert lost == []


def test_torchrun_ends_the_others_too(environment: dict[str, str], tmp_path: Path) -> None:
    opts, note = options(tmp_path / "run"), tmp_path / "note"
    arguments = [opts, "iteration", 3, 1, int(signal.SIGKILL), str(note)]
    script = tmp_path / "job.py"
    script.write_text(
        "import json, sys\nimport dnreid_plugins, lost_jobs\nfrom dnreid_plugins.runtime.launch import launch\n"
        "launch(lost_jobs.train_until_lost, args=tuple(json.loads(sys.argv[1])))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script)]
    done = subprocess.run(
        [*command, json.dumps(arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    said = "lost another process of the job" in done.stderr or "SIGKILL" in done.stderr
    good = done.returncode != 0 and said
    record("several processes", "kill -9 of one of 2 under torchrun", tried=1, survived=int(good))
    assert good, done.stderr[-3000:]
