"""Labels of 100,000 or (`--sizes 1000000`) a million images: exact, and from a faiss IVF table given as ``knn=``.

Each in a process of its own. Recall is the share of the exact 30 nearest that the lists visited hold; ARI compares the
labels with the exact ones, once with every outlier as a cluster of its own, once among the images that both cluster.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
import torch
from bench_labels import EPS, K1, K2, MIN_SAMPLES
from measure import GIB, Job, Report, Work, finish, interleaved, parser, say
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from synthetic import clustered

import dnreid_plugins  # noqa: F401  (patches fast-reid)
from dnreid_plugins.functional.neighbours.clustering import jaccard_dbscan
from dnreid_plugins.functional.neighbours.knn import Neighbours, knn_table

TRAINED_ON = 64
"""Rows per list that the IVF's centres are learned from."""


def exact(num: int, dim: int, folder: str) -> Work:
    """Job: our own search; the table and the labels stay in ``folder``."""
    features = clustered(num, dim)
    jaccard_dbscan(clustered(600, dim))  # compiles the loops

    def work() -> Report:
        start, spent = time.perf_counter(), time.process_time()
        found = knn_table(features, K1)
        return _labelled(features, found, start, spent, Path(folder) / "exact.npz")

    return work


def ivf(num: int, dim: int, folder: str, lists: int, probes: int) -> Work:
    """Job: the table of an ``IndexIVFFlat``, its training included."""
    features = clustered(num, dim)
    jaccard_dbscan(clustered(600, dim))
    rows = features.numpy()
    known = np.load(Path(folder) / "exact.npz")

    def work() -> Report:
        start, spent = time.perf_counter(), time.process_time()
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, lists)
        index.train(rows[:: max(num // (TRAINED_ON * lists), 1)])
        index.add(rows)
        index.nprobe = probes
        nearest = index.search(rows, K1)[1].astype(np.int32)
        short = nearest < 0  # fewer rows in the lists than asked for: the row itself stands in
        nearest[short] = np.nonzero(short)[0]
        report = _labelled(features, Neighbours(nearest), start, spent, Path(folder) / "ivf.npz")
        mine = np.load(Path(folder) / "ivf.npz")
        same = [np.isin(a, b).sum() for a, b in zip(known["table"], nearest, strict=True)]
        both = (known["labels"] >= 0) & (mine["labels"] >= 0)
        return report | {
            "recall": float(np.sum(same) / nearest.size),
            "ari": adjusted_rand_score(_alone(known["labels"]), _alone(mine["labels"])),
            "ari_clustered": adjusted_rand_score(known["labels"][both], mine["labels"][both]),
        }

    return work


def _labelled(features: torch.Tensor, found: Neighbours, start: float, spent: float, path: Path) -> Report:
    searched = time.perf_counter()
    labels = jaccard_dbscan(features, k1=K1, k2=K2, eps=EPS, min_samples=MIN_SAMPLES, knn=found)
    report = {
        "search_seconds": searched - start,
        "labels_seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - spent,
        "clusters": int(labels.max()) + 1,
        "clustered": float((labels >= 0).mean()),
    }
    np.savez(path, table=found.indices, labels=labels)
    return report


def _alone(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every outlier as a cluster of its own."""
    outliers = labels < 0
    return np.where(outliers, labels.max() + 1 + np.cumsum(outliers), labels)


def row_of(num: int, name: str, one: Report) -> Report:
    return {
        "N": num,
        "search": name,
        "all s": one.get("labels_seconds"),
        "of which search s": one.get("search_seconds"),
        "processor s": one.get("processor_seconds"),
        "total GiB": one.get("peak_gib"),
        "clusters": one.get("clusters"),
        "clustered %": 100 * one["clustered"] if "clustered" in one else None,
        "recall": one.get("recall"),
        "ARI": one.get("ari"),
        "ARI of what both cluster": one.get("ari_clustered"),
    }


def main() -> None:
    options = parser(__doc__, repeats=1)
    options.add_argument("--sizes", type=int, nargs="+", default=[100_000])
    options.add_argument("--dim", type=int, default=256)
    options.add_argument("--probes", type=int, nargs="+", default=[16, 64])
    args = options.parse_args()
    if args.quick:
        args.sizes, args.dim, args.probes = [700], 32, [4]
    torch.set_num_threads(args.threads)
    rows, raw = [], {}
    for num in args.sizes:
        lists = 2 ** round(np.log2(4 * num**0.5))  # 1,024 at 65,000, 4,096 at a million
        with tempfile.TemporaryDirectory() as folder:
            size = {"num": num, "dim": args.dim, "folder": folder}
            jobs = {"exact": Job(__file__, "exact", size, needs=8 * num * args.dim + 3000 * num)}
            for probes in args.probes:
                more = {**size, "lists": lists, "probes": probes}
                jobs[f"IVF{lists}, {probes} lists"] = Job(__file__, "ivf", more, needs=jobs["exact"].needs)
            say(f"{num} x {args.dim}")
            raw[str(num)] = found = interleaved(jobs, args, repeats=args.repeats)
        rows += [row_of(num, name, one) for name, one in found.items()]
        say(f"features {4 * num * args.dim / GIB:.2f} GiB")
    finish("million", args, {"Exact labels and those of an IVF table": rows}, raw)


if __name__ == "__main__":
    main()
