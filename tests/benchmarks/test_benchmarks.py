"""The benchmarks run, measure what they say, and report that fast-reid and we agree."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks"


@pytest.fixture
def measure(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("measure")


@pytest.fixture
def synthetic(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("synthetic")


def run_quick(name: str, path: Path) -> tuple[str, dict[str, Any]]:
    """What ``benchmarks/bench_NAME.py --quick`` prints and writes."""
    command = [sys.executable, str(FOLDER / f"bench_{name}.py"), "--quick", "--threads", "1"]
    done = subprocess.run([*command, "--json", str(path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, json.loads(path.read_text())


# ------------------------------------------------------------------ the benchmarks


def test_every_benchmark_is_run_by_a_test_below() -> None:
    names = {path.stem.removeprefix("bench_") for path in FOLDER.glob("bench_*.py")}
    assert names == {"labels", "ranking", *OTHERS}


@pytest.mark.slow
def test_labels(tmp_path: Path) -> None:
    printed, found = run_quick("labels", tmp_path / "a" / "labels.json")
    (times,), (memory,) = found["tables"]["Time (shortest of the repeats)"], found["tables"]["Memory"]
    assert times["N"] == memory["N"] == 400 and times["labels that differ"] == 0 and times["clusters"] > 3
    raw = found["raw"]["400"]
    assert times["ratio"] == pytest.approx(raw["fast-reid"]["seconds"] / raw["ours"]["seconds"])
    for name in ("fast-reid", "ours"):
        parts = raw[name]["search_seconds"] + raw[name]["after_seconds"]
        assert raw[name]["search_seconds"] > 0 and parts <= raw[name]["seconds"]
    equal = found["tables"]["Labels from the same table"]
    assert [row["eps"] for row in equal] == [0.3, 0.5, 0.6, 0.7]
    assert all(row["differ"] == 0 for row in equal)
    assert len({row["outliers"] for row in equal}) == 4  # the radii say something different
    assert float(equal[0]["largest distance difference"]) <= 2e-6
    assert "| N" in printed and "fast-reid s" in printed and found["machine"]["threads"] == 1


@pytest.mark.slow
def test_ranking(tmp_path: Path) -> None:
    printed, found = run_quick("ranking", tmp_path / "ranking.json")
    (raw,) = found["raw"].values()
    (times,) = found["tables"]["Time (shortest of the repeats)"]
    assert times["ratio python"] == pytest.approx(raw["python"]["seconds"] / raw["ours"]["seconds"])
    agreement = next(
        rows for title, rows in found["tables"].items() if title.startswith("Largest difference")
    )
    peers = {row["peer"] for row in agreement}
    assert peers | {name for name, one in raw.items() if "skipped" in one} == {"python", "cython"}
    for row in agreement:
        assert float(row["same matrix"]) <= 1e-6 and float(row["end to end"]) <= 1e-5
        assert 10 < row["mAP"] < 100
    assert "| queries x gallery" in printed


OTHERS = {
    "bridging_step": "One step of each stage",
    "cpml": "20 x 20 clusters",
    "label_parts": "400 x 64",
    "loader": "Processor time of an epoch",
    "million": "Exact labels and those of an IVF table",
    "processes": "One search for neighbours",
    "prompts": "One step",
    "search": "3000 x 256",
    "step": "A step beside the bare minimum",
    "systems": "An epoch of every system",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_others(name: str, tmp_path: Path, tiny_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREID_DATASETS", str(tiny_root))
    printed, found = run_quick(name, tmp_path / "figures.json")
    rows = next(rows for title, rows in found["tables"].items() if title.startswith(OTHERS[name]))
    figures = [(name, value) for row in rows for name, value in row.items() if isinstance(value, float)]
    # a tiny job may grow by nothing
    assert figures and all(value > 0 or "growth" in name for name, value in figures)
    assert OTHERS[name] in printed


# ------------------------------------------------------------------ how it is measured

JOBS = """
import numpy as np


def large(mebibytes):
    before = np.ones(50 * 2**20, np.uint8)

    def work():
        held = np.ones(mebibytes * 2**20, np.uint8)
        return {"sum": int(held[::4096].sum()), "array": before[:3]}

    return work


def broken():
    raise ValueError("this job has a reason")
"""


@pytest.mark.slow
def test_a_job_has_its_own_process_time_and_memory(measure: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "jobs.py"
    script.write_text(JOBS)
    report = measure.in_own_process(measure.Job(str(script), "large", {"mebibytes": 200}), threads=1)
    assert report["sum"] == 200 * 2**20 // 4096 and report["array"] == [1, 1, 1] and report["seconds"] > 0
    if report["growth_gib"] is not None:  # what is there before the work does not count
        assert 0.19 < report["growth_gib"] < 0.23
        assert report["peak_gib"] > report["growth_gib"] + 50 / 1024
    with pytest.raises(RuntimeError, match=r"broken\(\{\}\) ended with code 1: (?s:.*)this job has a reason"):
        measure.in_own_process(measure.Job(str(script), "broken"), threads=1)


def test_jobs_take_turns_and_the_best_of_each_is_kept(
    measure: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def run(job: Any, *, threads: int) -> dict[str, Any]:
        order.append(job.function)
        turn = len(order)
        return {
            "seconds": 10.0 - turn,
            "part_seconds": float(turn),
            "growth_gib": float(turn),
            "name": job.function,
        }

    monkeypatch.setattr(measure, "in_own_process", run)
    monkeypatch.setattr(measure, "available_memory", lambda: 100)
    jobs = {
        "a": measure.Job("", "one"),
        "huge": measure.Job("", "two", needs=101),
        "b": measure.Job("", "three"),
    }
    found = measure.interleaved(jobs, Namespace(quick=False, threads=1), repeats=2)
    assert order == ["one", "three", "one", "three"]
    best = {"seconds": 7.0, "part_seconds": 1.0, "growth_gib": 3.0, "name": "one", "all_seconds": [9.0, 7.0]}
    assert found["a"] == best
    assert found["huge"] == {"skipped": "needs about 0.0 GiB, 0.0 GiB are available"}


def test_tables_show_three_digits_and_dashes(measure: ModuleType) -> None:
    text = measure.table([{"N": 71_000, "s": 12.345, "x": None}, {"N": 1, "s": 1234.5, "x": "no"}])
    assert [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]] == [
        ["71,000", "12.3", "–"],
        ["1", "1,234", "no"],
    ]


# ------------------------------------------------------------------ what it is measured on


def test_features_are_unit_rows_and_a_function_of_the_seed(synthetic: ModuleType) -> None:
    rows = synthetic.clustered(300, 32, seed=1)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(300))
    assert torch.equal(rows, synthetic.clustered(300, 32, seed=1))
    assert not torch.equal(rows, synthetic.clustered(300, 32, seed=2))


def test_every_identity_is_in_the_gallery_and_nearest_to_itself(synthetic: ModuleType) -> None:
    query, gallery, ids, others = synthetic.query_and_gallery(80, 400, 128, identities=16)
    assert query.shape == (80, 128) and gallery.shape == (400, 128)
    assert set(others.tolist()) == set(range(16)) >= set(ids.tolist())
    nearest = others[(query @ gallery.T).argmax(dim=1)]
    assert 0.6 < (nearest == ids).float().mean() <= 1
