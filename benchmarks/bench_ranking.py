"""From features to CMC, mAP and mINP: ours against fast-reid's build_dist + evaluate_rank, Python and Cython.

Every measurement has a process of its own; all take turns. The stage alone is measured on the distance matrix
that fast-reid has made. fast-reid's Cython source is compiled in a temporary folder where Cython and a C compiler
are there, and left out otherwise. The floor is 2 Q G D operations at the rate of one large product in the same
run. Sizes above a hundred million pairs are measured once unless `--repeats` says more.
"""

from __future__ import annotations

import argparse
import importlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import GIB, Job, Report, Work, finish, interleaved, parser, product_job, say
from synthetic import query_and_gallery

import dnreid_plugins  # noqa: F401  (patches fast-reid)
from dnreid_plugins.functional.ranking.metrics import rank_distances, rank_metrics, summarize

# isort: split
from fastreid.evaluation import rank
from fastreid.utils.compute_dist import build_dist

SIZES = {"10121x3972": 174, "14964x19568": 686}
"""Test images by day and by night of DN-348 and DN-Wild, and their identities."""
ONCE_ABOVE = 1e8
PEER_BYTES = {"python": 20, "cython": 12}
"""What fast-reid takes per pair of query and gallery image; measured, rounded up."""

SETUP = """
import numpy
from setuptools import Extension, setup
from Cython.Build import cythonize
setup(ext_modules=cythonize([Extension("rank_cy", ["rank_cy.pyx"], include_dirs=[numpy.get_include()])]))
"""


def _data(queries: int, gallery: int, dim: int, identities: int) -> tuple[Any, ...]:
    """Features, then identities and cameras as fast-reid wants them; one camera by day, another by night,
    so that no image is removed."""
    left, right, ids, others = query_and_gallery(queries, gallery, dim, identities=identities)
    return left, right, (ids.numpy(), others.numpy(), np.zeros(queries, int), np.ones(gallery, int))


def ours(**size: int) -> Work:
    """Job: features to metrics."""
    left, right, who = _data(**size)
    rank_metrics(left[:50], right[:700], who[0][:50], who[1][:700])  # compiles, chooses the product
    return lambda: {"metrics": rank_metrics(left, right, *who[:2])}


def ours_stage(**size: int) -> Work:
    """Job: fast-reid's distance matrix to metrics."""
    left, right, who = _data(**size)
    distances = build_dist(left, right, metric="cosine")
    del left, right
    rank_distances(distances[:50], who[0][:50], who[1])
    return lambda: {"metrics": summarize(rank_distances(distances, *who[:2]))}


def python(**size: int) -> Work:
    """Job: fast-reid, features to metrics; the time after the distances is taken apart."""
    return _fastreid(rank.evaluate_py, size)


def cython(folder: str, **size: int) -> Work:
    """Job: the same with the compiled loops in ``folder``."""
    sys.path.insert(0, folder)
    return _fastreid(importlib.import_module("rank_cy").evaluate_cy, size)


def _fastreid(evaluate: Callable[..., Any], size: dict[str, int]) -> Work:
    left, right, who = _data(**size)
    rank.IS_CYTHON_AVAI = True  # evaluate_rank then calls what it would have imported
    rank.evaluate_cy = evaluate
    rank.evaluate_rank(
        build_dist(left[:50], right[:700], metric="cosine"), who[0][:50], who[1][:700], *who[2:]
    )

    def work() -> Report:
        distances = build_dist(left, right, metric="cosine")
        start = time.perf_counter()
        cmc, precision, penalty = rank.evaluate_rank(distances, *who)
        stage = time.perf_counter() - start
        metrics = {f"Rank-{k}": 100 * float(cmc[k - 1]) for k in (1, 5, 10)}
        metrics |= {"mAP": 100 * float(np.mean(precision)), "mINP": 100 * float(np.mean(penalty))}
        return {"metrics": metrics, "stage_seconds": stage}

    return work


def build_cython(folder: Path) -> str | None:
    """Compile fast-reid's loops in ``folder``; returns why that did not work, or None."""
    source = Path(rank.__file__).parent / "rank_cylib" / "rank_cy.pyx"
    shutil.copy(source, folder)
    (folder / "setup.py").write_text(SETUP)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.splitlines() or ["no message"])[-1]


# ---------------------------------------------------------------------------- tables


def difference(one: Report, other: Report) -> float:
    """Largest difference of the metrics, as a share of 1."""
    mine, theirs = one["metrics"], other["metrics"]
    return max(abs(mine[key] - theirs[key]) for key in theirs.keys() & mine.keys()) / 100


def rows_of(size: dict[str, int], found: dict[str, Report]) -> tuple[Report, Report, list[Report]]:
    """One row of the table of times, one of memory, and one of agreement with each peer."""
    mine, stage, rate = found["ours"], found["ours, stage"], found["product"]["product_gflops"]
    floor = 2 * size["queries"] * size["gallery"] * size["dim"] / rate / 1e9
    name = {"queries x gallery": f"{size['queries']:,} x {size['gallery']:,}"}
    times: Report = {**name, "ours s": mine["seconds"], "ours, stage s": stage["seconds"]}
    features = 4 * (size["queries"] + size["gallery"]) * size["dim"] / GIB
    memory: Report = {**name, "features GiB": features, "ours growth GiB": mine["growth_gib"]}
    agreement = []
    for peer in ("python", "cython"):
        theirs = found[peer]
        memory[f"{peer} growth GiB"] = theirs.get("growth_gib")
        known = "seconds" in theirs
        times[f"{peer} s"] = theirs.get("seconds")
        times[f"ratio {peer}"] = theirs["seconds"] / mine["seconds"] if known else None
        times[f"stage ratio {peer}"] = theirs["stage_seconds"] / stage["seconds"] if known else None
        if known:
            values = {"mAP": theirs["metrics"]["mAP"], "Rank-1": theirs["metrics"]["Rank-1"]}
            apart = [f"{difference(one, theirs):.1e}" for one in (stage, mine)]
            row = {"same matrix": apart[0], "end to end": apart[1], **values}
            agreement.append({**name, "peer": peer, **row})
    times |= {"product GFLOP/s": rate, "ours / floor": mine["seconds"] / floor}
    return times, memory, agreement


def measure_size(text: str, args: argparse.Namespace, folder: str, skipped: dict[str, str]) -> Any:
    """Reports of all jobs at one size, and the size."""
    queries, gallery = map(int, text.split("x"))
    identities = SIZES.get(text, max(gallery // 25, 1))
    size = {"queries": queries, "gallery": gallery, "dim": args.dim, "identities": identities}
    need = {peer: per_pair * queries * gallery for peer, per_pair in PEER_BYTES.items()}
    if queries * gallery > args.python_pairs:
        skipped = skipped | {"python": "it takes minutes, see --python-pairs"}
    jobs = {
        "product": product_job(args.quick),
        "ours": Job(__file__, "ours", size),
        "ours, stage": Job(__file__, "ours_stage", size, needs=8 * queries * gallery),
        "cython": Job(__file__, "cython", {**size, "folder": folder}, needs=need["cython"]),
        "python": Job(__file__, "python", size, needs=need["python"]),
    }
    say(f"{queries} x {gallery} x {args.dim}")
    for name, why in skipped.items():
        say(f"  {name}: left out, {why}")
    repeats = args.repeats or (3 if queries * gallery <= ONCE_ABOVE else 1)
    chosen = {name: job for name, job in jobs.items() if name not in skipped}
    found = interleaved(chosen, args, repeats=repeats)
    return size, found | {name: {"skipped": why} for name, why in skipped.items()}


def main() -> None:
    options = parser(__doc__, repeats=0)
    options.add_argument("--sizes", nargs="+", default=list(SIZES), metavar="QUERIESxGALLERY")
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument(
        "--python-pairs",
        type=float,
        default=ONCE_ABOVE,
        metavar="N",
        help="up to so many pairs fast-reid's Python loops run as well; they take minutes at DN-Wild's size (3e8)",
    )
    args = options.parse_args()
    if args.quick:
        args.sizes, args.dim, args.repeats = ["120x700"], 64, 1
    torch.set_num_threads(args.threads)
    times, memory, agreement = [], [], []
    raw: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        if reason := build_cython(Path(folder)):
            skipped["cython"] = reason
        for text in args.sizes:
            size, raw[text] = measure_size(text, args, folder, skipped)
            row, memory_row, agreement_rows = rows_of(size, raw[text])
            times.append(row)
            memory.append(memory_row)
            agreement += agreement_rows
    tables = {
        "Time (shortest of the repeats)": times,
        "Memory": memory,
        "Largest difference of Rank-1, Rank-5, Rank-10, mAP and mINP (as a share of 1)": agreement,
    }
    finish("ranking", args, tables, raw)


if __name__ == "__main__":
    main()
