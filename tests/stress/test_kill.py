"""kill -9 anywhere, resume, and the run ends with the bits of the undisturbed one."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ledger import record

HERE = Path(__file__).resolve().parent
#: What is killed: overrides of the tiny config, or of the config that they begin with.
METHODS: dict[str, list[Any]] = {
    "Base": [],
    "CIA": [
        *["MODEL.LOSSES.NAME", ["ClusterNCE", "MAA", "DGM"], "MODEL.LOSSES.DGM.WEIGHT", [[1, 0.3]]],
        *["MODEL.LOSSES.DGM.ON_EMPTY", "keep_last"],
    ],
    # Most of its time is stage 1; one short epoch of stage 2 shows what the prompts have become.
    "stage 1 of Bridging": [
        *["tiny_bridging.yml", "PROMPT_STAGE.EPOCHS", 20, "SOLVER.MAX_EPOCH", 1],
        *["DATALOADER.ITERS_PER_EPOCH", 2],
    ],
    "both stages of Bridging": ["tiny_bridging.yml"],
}
KILLS = int(os.environ.get("DNREID_KILLS", "30"))
#: Beginnings of the places that `kill_server` notes; each is a row of the table.
AREAS = ("start", "stage 1", "label phase", "iteration", "optimizer", "memory", "checkpoint", "evaluation")
#: (place, how often it is visited before, bytes written before)
TRAPS: list[dict[str, Any]] = [
    {"place": "label phase: extract begins", "count": 1},
    {"place": "label phase: extract ended", "count": 2},
    {"place": "label phase: rebuild ended", "count": 1},
    {"place": "iteration begins", "count": 3},
    {"place": "optimizer step ended", "count": 2},
    {"place": "memory update ended", "count": 5},
    {"place": "checkpoint bytes", "count": 1, "after_bytes": 1},
    {"place": "checkpoint bytes", "count": 1, "after_bytes": 5000},
    {"place": "checkpoint written", "count": 2},
    {"place": "checkpoint rename begins", "count": 3},
    {"place": "checkpoint renamed", "count": 3},
    {"place": "evaluation ended", "count": 1},
    # Only where there is a stage 1; elsewhere a run goes through it undisturbed.
    {"place": "stage 1 step begins", "count": 4},
    {"place": "stage 1 step ended", "count": 7},
]


class Server:
    """`kill_server` in a process of its own."""

    def __init__(self, root: Path) -> None:
        environment = {**os.environ, "FASTREID_DATASETS": str(root), "OMP_NUM_THREADS": "1"}
        environment["NUMBA_NUM_THREADS"] = "1"
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "kill_server.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def trial(
        self,
        method: str,
        folder: Path,
        *,
        resume: bool,
        trap: dict[str, Any] | None = None,
        after: float = 0.0,
    ) -> tuple[int, str, float]:
        """Run once; kill from outside ``after`` seconds. Returns exit code, place reached, seconds taken."""
        assert self.process.stdin is not None and self.process.stdout is not None
        folder.mkdir(parents=True, exist_ok=True)
        marker = folder.with_name(f"{folder.name}.marker")
        marker.unlink(missing_ok=True)
        opts = [*COMMON, *METHODS[method], "OUTPUT_DIR", str(folder)]
        request = {"opts": opts, "resume": resume, "trap": trap or {}, "marker": str(marker)}
        request["log"] = str(folder.with_name(f"{folder.name}.log"))
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        child, start = int(self.process.stdout.readline()), time.monotonic()
        if after > 0:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):  # it was faster
                os.kill(child, signal.SIGKILL)
        code = int(self.process.stdout.readline())
        place = marker.read_text().strip() if marker.exists() else ""
        return code, place or "start", time.monotonic() - start

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(600)


COMMON: list[Any] = [
    "SOLVER.MAX_EPOCH",
    3,
    "DATALOADER.ITERS_PER_EPOCH",
    5,
    "SOLVER.CHECKPOINT_MINUTES",
    2e-4,
]
COMMON += ["AUDIT.PERIOD", 0, "TEST.EVAL_PERIOD", 1]


@pytest.fixture(scope="module")
def server(tiny_root: Path) -> Iterator[Server]:
    server = Server(tiny_root)
    yield server
    server.close()


Undisturbed = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Final state and duration of a method's undisturbed run, which is done once."""

    @functools.cache
    def run(method: str) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("whole") / "run"
        code, _, seconds = server.trial(method, folder, resume=False)
        assert code == 0, folder.with_name("run.log").read_text()[-3000:]
        return {**final_state(folder), "seconds": seconds}

    return run


def final_state(folder: Path) -> dict[str, Any]:
    """Final weights and metrics of the run in ``folder``."""
    content = torch.load(folder / "model_final.pth", weights_only=True)
    results = folder / "results.json"
    metrics = json.loads(results.read_text()) if results.exists() else {}
    rows = folder / "health.jsonl"
    # As text, since NaN is not equal to itself.
    health = rows.read_text().splitlines() if rows.exists() else []
    prompts = folder / "stage1.pth"
    if prompts.exists():
        stage = torch.load(prompts, weights_only=True)["stage"]["prompts"]
        content["model"] |= {f"stage 1: {key}": value for key, value in stage.items()}
    return {"weights": content["model"], "metrics": metrics, "health": health}


def differences(expected: dict[str, Any], folder: Path) -> list[str]:
    """What of the final state is not as in the undisturbed run, bit for bit."""
    got = final_state(folder)
    parts = [key for key, value in expected["weights"].items() if not torch.equal(value, got["weights"][key])]
    parts += [key for key in ("metrics", "health") if expected[key] != got[key]]
    leftovers = [path.name for path in folder.glob(".*.part")]
    return parts + leftovers


def interrupted_run(
    server: Server, method: str, folder: Path, kills: list[dict[str, Any]], seconds: float
) -> Counter[str]:
    """Run to the end through all ``kills`` (traps or seconds from the start); returns where they hit."""
    hit: Counter[str] = Counter()
    resume = False
    for one in [*kills, {}]:
        after = one.get("after", 0.0) * seconds
        trap = {k: v for k, v in one.items() if k != "after"}
        code, place, _ = server.trial(method, folder, resume=resume, trap=trap, after=after)
        log = folder.with_name(f"{folder.name}.log").read_text()
        assert code in (0, -signal.SIGKILL), f"{method}, {one}: exit code {code}\n{log[-3000:]}"
        if code == -signal.SIGKILL:
            hit[place] += 1
        resume = True
    return hit


@pytest.mark.parametrize("method", ["Base", "CIA"])
def test_three_kills_in_one_run(
    server: Server, undisturbed: Undisturbed, tmp_path: Path, method: str
) -> None:
    """The quick version: in the label phase, in an iteration and inside the bytes of a checkpoint."""
    hit = interrupted_run(server, method, tmp_path / "run", [TRAPS[1], TRAPS[4], TRAPS[7]], 0.0)
    assert hit == {"label phase: extract ended": 1, "optimizer step ended": 1, "checkpoint write begins": 1}
    assert differences(undisturbed(method), tmp_path / "run") == []


@pytest.mark.stress
@pytest.mark.parametrize("method", list(METHODS))
def test_kills_at_random_moments(
    server: Server, undisturbed: Undisturbed, tmp_path: Path, method: str
) -> None:
    """`KILLS` kills, three per run, half from outside at any time, half at traps: each once before any comes again."""
    rng = random.Random(0)
    traps: list[dict[str, Any]] = []
    hit: Counter[str] = Counter()
    lost: list[str] = []
    runs = 0

    def kill() -> dict[str, Any]:
        if rng.random() < 0.5:
            return {"after": rng.uniform(0.05, 0.95)}
        if not traps:
            traps.extend(rng.sample(TRAPS, len(TRAPS)))
        return dict(traps.pop())

    while hit.total() < KILLS:
        runs += 1
        assert runs < 4 * KILLS, f"kills do not hit any more: {hit}"
        folder = tmp_path / f"run{runs}"
        kills = [kill() for _ in range(3)]
        hit += interrupted_run(server, method, folder, kills, undisturbed(method)["seconds"])
        lost += differences(undisturbed(method), folder)
    assert all(place.startswith(AREAS) for place in hit), hit
    for area in AREAS:
        count = sum(number for place, number in hit.items() if place.startswith(area))
        if count:
            record(
                f"kill -9, {method}",
                f"in or after: {area}",
                tried=count,
                survived=0 if lost else count,
                lost=", ".join(sorted(set(lost))),
            )
    assert not lost, lost
