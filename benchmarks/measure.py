"""Measurements in processes of their own: wall time, growth of the resident memory, interleaved repeats.

A job is a function at the top of a benchmark file. It prepares (imports, data, compiled loops) and returns
the work to be measured, which returns a dict for the report.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from dnreid_plugins.engine.preflight.resources import available_memory
from dnreid_plugins.functional.neighbours._product import product_rate

GIB = 2.0**30
ROOT = Path(__file__).resolve().parents[1]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

Work = Callable[[], dict[str, Any]]
Report = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """``function(**arguments)`` of ``script``; not started where fewer than ``needs`` bytes are available."""

    script: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)
    needs: float = 0.0

    def obstacle(self) -> str | None:
        """Why it cannot run here, or None."""
        there = available_memory()
        if there is None or self.needs <= there:
            return None
        return f"needs about {self.needs / GIB:.1f} GiB, {there / GIB:.1f} GiB are available"


def in_own_process(job: Job, *, threads: int) -> Report:
    """Run a job; adds ``seconds`` (wall), ``growth_gib`` above the state before the work, and ``peak_gib``.

    Raises:
        RuntimeError: with the last lines the process wrote.
    """
    # The allocator settings of the Makefile keep freed memory; here that would count as growth.
    env = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    env["OMP_NUM_THREADS"] = str(threads)
    command = [sys.executable, __file__, job.script, job.function, json.dumps(job.arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.splitlines()[-5:])
        raise RuntimeError(f"{job.function}({job.arguments}) ended with code {done.returncode}: {tail}")
    report: Report = json.loads(done.stdout.splitlines()[-1])
    return report


def run_here(script: str, function: str, arguments: dict[str, Any]) -> Report:
    """What the process of a job does."""
    spec = importlib.util.spec_from_file_location(Path(script).stem, script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    work: Work = getattr(module, function)(**arguments)
    gc.collect()
    before = _restart_peak()
    start = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - start
    peak = _resident("VmHWM")
    memory: Report = {"growth_gib": None, "peak_gib": None}
    if before is not None and peak is not None:
        memory = {"growth_gib": (peak - before) / GIB, "peak_gib": peak / GIB}
    return {"seconds": seconds, **memory, **found}


def interleaved(jobs: dict[str, Job], args: argparse.Namespace, *, repeats: int = 1) -> dict[str, Report]:
    """Every job in turn, ``repeats`` times: times are the shortest, memory the largest of the repeats.

    A job that does not fit into memory is reported as ``{"skipped": reason}``. With ``--quick`` all run in this
    process: the imports of one take longer than their work.
    """
    reports: dict[str, Report] = {}
    runs: dict[str, list[Report]] = {name: [] for name in jobs}
    for turn in range(repeats):
        for name, job in jobs.items():
            if name in reports:
                continue
            if reason := job.obstacle():
                reports[name] = {"skipped": reason}
                say(f"  {name}: left out, {reason}")
                continue
            if args.quick:
                one = run_here(job.script, job.function, job.arguments)
            else:
                one = in_own_process(job, threads=args.threads)
            runs[name].append(one)
            say(f"  {name}, {turn + 1} of {repeats}: {one['seconds']:.2f} s")
    return reports | {name: _best(of) for name, of in runs.items() if of}


def _best(runs: Sequence[Report]) -> Report:
    best = dict(runs[0])
    for key in best:
        values = [run[key] for run in runs]
        if key.endswith("seconds"):
            best[key] = min(values)
        elif key.endswith(("_gib", "_gflops")) and None not in values:
            best[key] = max(values)
    best["all_seconds"] = [run["seconds"] for run in runs]
    return best


# ---------------------------------------------------------------------------- memory and the machine


def _resident(name: str) -> int | None:
    """Bytes that the kernel names ``VmRSS`` (now) or ``VmHWM`` (peak); None where it does not say."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def _restart_peak() -> int | None:
    """Let the peak count from now on; returns what is resident now, None where peaks cannot be restarted."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _resident("VmRSS")


def product(size: int) -> Work:
    """Job: float32 operations per second of one large product, torch's own and the one the search uses."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    torch.mm(a, b)

    def work() -> Report:
        plain = min(seconds_of(lambda: torch.mm(a, b)) for _ in range(3))
        return {"mm_gflops": 2 * size**3 / plain / 1e9, "product_gflops": product_rate(size) / 1e9}

    return work


def product_job(quick: bool) -> Job:
    return Job(__file__, "product", {"size": 256 if quick else 4096})


def machine(threads: int) -> Report:
    """What the figures depend on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = named[0].split(":", 1)[1].strip() if named else cpu
    return {
        "cpu": cpu,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


# ---------------------------------------------------------------------------- command line and report


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def shortest(work: Callable[[], object], repeats: int) -> float:
    """Seconds of the shortest of ``repeats`` runs in this process, after one to warm up."""
    work()
    return min(seconds_of(work) for _ in range(repeats))


def parser(doc: str | None, *, repeats: int = 3) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    result = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs; no figures")
    result.add_argument("--repeats", type=int, default=repeats, help="0: as its text says")
    result.add_argument("--threads", type=int, default=CORES)
    result.add_argument("--json", type=Path, help="where the figures go (default: logs/benchmarks/NAME.json)")
    return result


def say(text: str) -> None:
    """A line while it goes on; the tables alone go to the standard output."""
    print(text, file=sys.stderr, flush=True)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; figures to three digits, None as a dash."""
    shown = [{key: _shown(value) for key, value in row.items()} for row in rows]
    return tabulate(shown, headers="keys", tablefmt="pipe", disable_numparse=True)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def finish(name: str, args: argparse.Namespace, tables: dict[str, list[dict[str, Any]]], raw: Any) -> None:
    """Print the tables and write them with everything measured as JSON."""
    for title, rows in tables.items():
        print(f"\n{title}\n\n{table(rows)}" if rows else f"\n{title}: nothing measured")
    path = args.json or ROOT / "logs" / "benchmarks" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine(args.threads), "tables": tables, "raw": raw}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    say(f"figures in {path}")


if __name__ == "__main__":
    outcome = run_here(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))
    print(json.dumps(outcome, default=lambda array: array.tolist()))
