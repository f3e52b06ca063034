"""Measure how the label phase grows with the number of images: time, memory, size of the sparse graph.

    python tools/label_growth.py --sizes 10000 20000 40000 --dim 256

Features are made up: unit vectors around a centre per 50 images, with neighbourhoods that overlap. Each size runs in
a process of its own; the table is markdown, for docs/scaling.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dnreid_plugins.functional.clustering import dbscan_graph
from dnreid_plugins.functional.jaccard import jaccard_graph
from dnreid_plugins.functional.knn import knn_table

K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4
IMAGES_PER_CENTRE = 50
#: Dimensions in which centres differ, and the noise there beside centres of spread 1: neighbourhoods overlap.
LATENT, SPREAD = 64, 0.9
COLUMNS = (
    "images",
    "search s",
    "graph and DBSCAN s",
    "growth GiB",
    "entries per image",
    "clusters",
    "outliers %",
)


def features(num: int, dim: int) -> torch.Tensor:
    """``(num, dim)`` float32 unit rows around ``num / 50`` centres, the same for the same numbers."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(max(num // IMAGES_PER_CENTRE, 1), LATENT, generator=generator)
    turn = torch.randn(LATENT, dim, generator=generator)
    rows = torch.empty(num, dim)
    for own, out in zip(torch.arange(num).split(4096), rows.split(4096), strict=True):
        noise = torch.randn(len(own), LATENT, generator=generator)
        out.copy_(F.normalize((centres[own % len(centres)] + SPREAD * noise) @ turn))
    return rows


def resident(name: str) -> int:
    """Bytes of ``VmRSS`` (now) or ``VmHWM`` (the peak) of this process; 0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0
    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def measure(num: int, dim: int) -> dict[str, float]:
    """One pass of the label phase over one domain of ``num`` images."""
    rows = features(num, dim)
    warm = features(200, dim)
    dbscan_graph(jaccard_graph(warm, k1=K1, k2=K2, radius=EPS), eps=EPS, min_samples=MIN_SAMPLES)
    before = resident("VmRSS")
    start = time.perf_counter()
    found = knn_table(rows, K1)
    searched = time.perf_counter()
    graph = jaccard_graph(rows, k1=K1, k2=K2, radius=EPS, knn=found)
    labels = dbscan_graph(graph, eps=EPS, min_samples=MIN_SAMPLES)
    end = time.perf_counter()
    values = (num, searched - start, end - searched, (resident("VmHWM") - before) / 2**30, graph.nnz / num)
    return dict(zip(COLUMNS, (*values, int(labels.max()) + 1, 100 * float((labels < 0).mean())), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 20_000, 40_000, 80_000])
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--one", type=int, help="measure this size here and print JSON")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.one is not None:
        print(json.dumps(measure(args.one, args.dim)))
        return
    rows = []
    for size in args.sizes:
        command = [sys.executable, __file__, "--one", str(size), "--dim", str(args.dim)]
        command += ["--threads", str(args.threads)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(tabulate(rows, headers="keys", tablefmt="pipe", floatfmt=".3g", intfmt=","))


if __name__ == "__main__":
    main()
