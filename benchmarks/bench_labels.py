"""Pseudo labels of N x 2048 features: ours against fast-reid's dense Jaccard distances + scikit-learn's DBSCAN.

Every measurement has a process of its own; the two take turns. k1 = 30, k2 = 6, eps = 0.6, four images for a core.
The floor is N^2 D operations (each product of two blocks serves both) at the rate of one large product in the
same run. Sizes above 20,000 are measured once unless `--repeats` says more; what does not fit into memory is left
out with the reason.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from measure import GIB, Job, Report, Work, finish, interleaved, parser, product_job, say
from numpy.typing import NDArray
from synthetic import clustered

import dnreid_plugins  # noqa: F401  (patches fast-reid)
from dnreid_plugins.functional.neighbours.clustering import (
    TIE_TOLERANCE,
    dbscan_graph,
    estimate_label_phase,
    jaccard_dbscan,
)
from dnreid_plugins.functional.neighbours.jaccard import jaccard_graph
from dnreid_plugins.functional.neighbours.knn import knn_table

# isort: split
from fastreid.utils import compute_dist
from sklearn.cluster import DBSCAN

K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4
EVERY_EPS = (0.3, 0.5, 0.6, 0.7)
ONCE_ABOVE = 20_000
PEER_BYTES = 12
"""What fast-reid takes per entry of the N x N matrix; 13.1 GiB at N = 35,000 is 11.4."""


def ours(num: int, dim: int) -> Work:
    """Job: search, graph and DBSCAN."""
    features = clustered(num, dim)
    jaccard_dbscan(clustered(600, dim))  # compiles the loops, chooses the product

    def work() -> Report:
        start = time.perf_counter()
        found = knn_table(features, K1)
        searched = time.perf_counter()
        labels = jaccard_dbscan(features, k1=K1, k2=K2, eps=EPS, min_samples=MIN_SAMPLES, knn=found)
        end = time.perf_counter()
        return {"labels": labels, "search_seconds": searched - start, "after_seconds": end - searched}

    return work


def fastreid(num: int, dim: int) -> Work:
    """Job: fast-reid's function as it is, and scikit-learn; the time inside faiss is taken apart."""
    features = clustered(num, dim)
    dense_labels(compute_dist.compute_jaccard_distance(clustered(200, dim), k1=K1, k2=K2, search_option=3))
    clock = _TimedIndex.put_in_place()

    def work() -> Report:
        start = time.perf_counter()
        distances = compute_dist.compute_jaccard_distance(features, k1=K1, k2=K2, search_option=3)
        labels = dense_labels(distances)
        after = time.perf_counter() - start - clock.seconds
        return {"labels": labels, "search_seconds": clock.seconds, "after_seconds": after}

    return work


def dense_labels(distances: NDArray[np.float32], eps: float = EPS) -> NDArray[np.int64]:
    """scikit-learn's DBSCAN of a dense matrix."""
    model = DBSCAN(eps=eps, min_samples=MIN_SAMPLES, metric="precomputed", n_jobs=-1)
    labels: NDArray[np.int64] = model.fit_predict(distances)
    return labels


class _TimedIndex:
    """faiss as fast-reid calls it, with a clock, or with a given table in its place."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.index: Any = None
        self.table: NDArray[np.int64] | None = None

    @classmethod
    def put_in_place(cls) -> _TimedIndex:
        """Let fast-reid make its index through the one that is returned."""
        own, make = cls(), compute_dist.index_init_cpu

        def begin(dim: int) -> _TimedIndex:
            own.index = make(dim)
            return own

        compute_dist.index_init_cpu = begin
        return own

    def add(self, rows: NDArray[np.float32]) -> None:
        if self.table is None:
            start = time.perf_counter()
            self.index.add(rows)
            self.seconds += time.perf_counter() - start

    def search(self, rows: NDArray[np.float32], k: int) -> tuple[Any, NDArray[np.int64]]:
        if self.table is not None:
            return None, self.table[:, :k]
        start = time.perf_counter()
        found: tuple[Any, NDArray[np.int64]] = self.index.search(rows, k)
        self.seconds += time.perf_counter() - start
        return found


def equality(num: int, dim: int) -> Work:
    """Job: labels from the same k-NN table at four radii, element by element, and the kept distances."""
    features = clustered(num, dim)
    clock = _TimedIndex.put_in_place()

    def work() -> Report:
        found = knn_table(features, K1)
        clock.table = found.indices.astype(np.int64)
        theirs = compute_dist.compute_jaccard_distance(features.clone(), k1=K1, k2=K2, search_option=3)
        graph = jaccard_graph(features, k1=K1, k2=K2, radius=max(EVERY_EPS) + TIE_TOLERANCE, knn=found)
        ruled = [dbscan_graph(graph, eps=eps + TIE_TOLERANCE, min_samples=MIN_SAMPLES) for eps in EVERY_EPS]
        kept = graph.tocoo()
        rows = [
            {
                "eps": eps,
                "clusters": int(one.max()) + 1,
                "outliers": int((one < 0).sum()),
                "differ": int((one != dense_labels(theirs, eps + TIE_TOLERANCE)).sum()),
            }
            for eps, one in zip(EVERY_EPS, ruled, strict=True)
        ]
        return {"rows": rows, "largest": float(np.abs(theirs[kept.row, kept.col] - kept.data).max())}

    return work


# ---------------------------------------------------------------------------- tables


def ratio(theirs: Report, mine: Report, key: str) -> float | None:
    return theirs[key] / mine[key] if key in theirs else None


def rows_of(num: int, dim: int, found: dict[str, Report]) -> tuple[Report, Report]:
    """One row of the table of times and one of memory."""
    mine, theirs, rate = found["ours"], found["fast-reid"], found["product"]["product_gflops"]
    floor = num**2 * dim / rate / 1e9
    estimate = estimate_label_phase(num, dim, k1=K1, rate=rate * 1e9)
    mine["labels"], other = np.array(mine["labels"]), np.array(theirs.get("labels", []))
    differ = int((mine["labels"] != other).sum()) if len(other) else None
    times = {
        "N": num,
        "fast-reid s": theirs.get("seconds"),
        "ours s": mine["seconds"],
        "ratio": ratio(theirs, mine, "seconds"),
        "search ratio": ratio(theirs, mine, "search_seconds"),
        "ours after the search s": mine["after_seconds"],
        "ratio after it": ratio(theirs, mine, "after_seconds"),
        "product GFLOP/s": rate,
        "ours / floor": mine["seconds"] / floor,
        "clusters": int(mine["labels"].max()) + 1,
        "outliers %": 100 * float((mine["labels"] < 0).mean()),
        "labels that differ": differ,
    }
    memory = {
        "N": num,
        "features GiB": 4 * num * dim / GIB,
        "fast-reid growth GiB": theirs.get("growth_gib"),
        "ours growth GiB": mine["growth_gib"],
        "ours total GiB": mine["peak_gib"],
        "estimated growth GiB": estimate.bytes / GIB,
        "estimated s": estimate.seconds,
        "ours s": mine["seconds"],
    }
    return times, memory


def main() -> None:
    options = parser(__doc__, repeats=0)
    options.add_argument("--sizes", type=int, nargs="+", default=[3_000, 10_000, 35_000, 71_000])
    options.add_argument("--equal-sizes", type=int, nargs="*", default=[3_000, 10_000])
    options.add_argument("--dim", type=int, default=2048)
    args = options.parse_args()
    if args.quick:
        args.sizes, args.equal_sizes, args.dim, args.repeats = [400], [300], 64, 1
    torch.set_num_threads(args.threads)
    times, memory, equal = [], [], []
    raw: dict[str, Any] = {}
    for num in args.sizes:
        size = {"num": num, "dim": args.dim}
        jobs = {
            "product": product_job(args.quick),
            "ours": Job(__file__, "ours", size),
            "fast-reid": Job(__file__, "fastreid", size, needs=PEER_BYTES * num**2 + 8 * num * args.dim),
        }
        say(f"{num} x {args.dim}")
        repeats = args.repeats or (3 if num <= ONCE_ABOVE else 1)
        raw[str(num)] = found = interleaved(jobs, args, repeats=repeats)
        for rows, row in zip((times, memory), rows_of(num, args.dim, found), strict=True):
            rows.append(row)
        for report in found.values():
            report.pop("labels", None)
    for num in args.equal_sizes:
        say(f"equality at {num} x {args.dim}")
        job = Job(__file__, "equality", {"num": num, "dim": args.dim}, needs=PEER_BYTES * num**2)
        (found_one,) = interleaved({"equality": job}, args).values()
        raw[f"equality {num}"] = found_one
        for row in found_one.get("rows", []):
            equal.append({"N": num, **row, "largest distance difference": f"{found_one['largest']:.1e}"})
    titles = {"Time (shortest of the repeats)": times, "Memory": memory, "Labels from the same table": equal}
    finish("labels", args, titles, raw)


if __name__ == "__main__":
    main()
