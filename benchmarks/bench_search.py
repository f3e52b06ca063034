"""Search a gallery: `Index` beside plain faiss with the same structure and settings.

One process, both in turns, the shortest of the turns. Each structure is built once: what `Index` adds to building it
is writing features and images. Then one image in a hundred is added, with known features, and the gallery is written
again; faiss alone only adds their rows to what it has in memory. `Index` scores the candidates again in float64,
orders exact ties by path and, where all rows are compared, asks for more until no other row can be among the best;
plain faiss does none of this. Recall is the share of the true ten (by `Index` over all rows) among the ten that were
found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import finish, parser, say, seconds_of
from synthetic import clustered

import dnreid_plugins  # noqa: F401  (patches fast-reid)
from dnreid_plugins.functional.types import Domain
from dnreid_plugins.retrieval import backends, store
from dnreid_plugins.retrieval.backends import KINDS, faiss
from dnreid_plugins.retrieval.index import Index

QUERIES, BATCH, K = 200, 100, 10
ADDED = 100
"""One image in so many is added."""


class _Known:
    """Stands in for the encoder: features that are there already."""

    fingerprint = "synthetic"

    def __init__(self, features: np.ndarray) -> None:
        self.features = features

    def embed(self, paths: list[str], domains: list[Domain]) -> torch.Tensor:
        return torch.from_numpy(self.features)


class _Plain:
    """faiss alone."""

    def __init__(self, kind: str, structure: Any) -> None:
        self.structure, self.options = structure, None
        if kind == "ivf":
            self.options = backends.probes(structure, None)
        elif kind == "hnsw":
            self.options = backends.width(K, None)

    def search(self, queries: np.ndarray) -> np.ndarray:
        return self.structure.search(queries, K, params=self.options)[1]


def measured(
    kind: Any,
    rows: np.ndarray,
    entries: list[store.Entry],
    queries: np.ndarray,
    more: np.ndarray,
    repeats: int,
) -> dict[str, Any]:
    """Figures of one kind; ``found`` holds the rows of both for the recall, ``more`` the rows that are added."""
    with tempfile.TemporaryDirectory() as home:
        start = time.perf_counter()
        structure = None if kind == "flat" else backends.build(kind, rows)
        built = time.perf_counter() - start
        index = Index(rows, entries, fingerprint="synthetic", kind=kind, structure=structure)
        saved = seconds_of(lambda: index.save(Path(home) / "gallery"))
        index = Index.load(Path(home) / "gallery")
        index.search(queries[:2], K)  # reads the structure and sorts the paths
        if kind == "flat":
            structure = faiss.IndexFlatIP(rows.shape[1])
            structure.add(rows)
        plain = _Plain(kind, structure)
        found: dict[str, Any] = {
            "ours": index.search(queries, K)[1],
            "plain": plain.search(queries),
        }
        work: dict[str, Callable[[], object]] = {
            "one, ours": lambda: [index.search(queries[i : i + 1], K) for i in range(20)],
            "one, faiss": lambda: [plain.search(queries[i : i + 1]) for i in range(20)],
            "batch, ours": lambda: index.search(queries[:BATCH], K),
            "batch, faiss": lambda: plain.search(queries[:BATCH]),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        for turn in range(repeats):
            for name, one in work.items():
                times[name].append(seconds_of(one) / (20 if name.startswith("one") else BATCH))
            say(f"  {kind}, turn {turn + 1} of {repeats}")
        say(
            f"  {kind}: built in {built:.0f} s, "
            + ", ".join(f"{n} {1e3 * min(t):.3g} ms" for n, t in times.items())
        )
        images = [Path(home) / f"{number}.jpg" for number in range(len(more))]
        for number, image in enumerate(images):
            image.write_text(str(number))
        added = seconds_of(lambda: _add(index, images, more, Path(home) / "gallery"))
        plainly = seconds_of(lambda: structure.add(more))
        say(f"  {kind}: {len(more)} added in {added:.1f} s, faiss {plainly:.2g} s")
    result = {"built": built, "saved": saved, "added": added, "added, faiss": plainly, "found": found}
    return result | {name: min(seconds) for name, seconds in times.items()}


def _add(index: Index, images: list[Path], features: np.ndarray, folder: Path) -> None:
    index.add(_Known(features), images, "night")  # type: ignore[arg-type]
    index.save(folder)


def recall(found: np.ndarray, truth: np.ndarray) -> float:
    """Share of the true rows that were found."""
    return float(np.mean([len({*a} & {*b}) / len(b) for a, b in zip(found.tolist(), truth.tolist())]))


def main() -> None:
    arguments = parser(__doc__, repeats=3)
    arguments.add_argument("--num", type=int, default=20_000, help="100,000 take ten minutes")
    arguments.add_argument("--dim", type=int, default=256)
    arguments.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="besides flat")
    args: argparse.Namespace = arguments.parse_args()
    num = 3000 if args.quick else args.num
    faiss.omp_set_num_threads(args.threads)
    every = clustered(num + QUERIES + num // ADDED, args.dim).numpy()
    rows, queries, more = np.split(every, [num, num + QUERIES])
    entries = [store.Entry(f"/gallery/{number:08d}.jpg", Domain.NIGHT) for number in range(num)]
    found = {}
    for kind in dict.fromkeys(("flat", *args.kinds)):
        say(f"{kind}, {num} x {args.dim}")
        found[kind] = measured(kind, rows, entries, queries, more, args.repeats)
    truth, table = found["flat"]["found"]["ours"], []
    for kind, one in found.items():
        table.append(
            {
                "kind": kind,
                "build, s": None if kind == "flat" else one["built"],
                "save, s": one["saved"],
                "add 1 %, s": one["added"],
                "faiss' add, s": one["added, faiss"],
                "one query, ms": 1e3 * one["one, ours"],
                "over faiss": one["one, ours"] / one["one, faiss"],
                "of a batch, ms": 1e3 * one["batch, ours"],
                "over faiss ": one["batch, ours"] / one["batch, faiss"],
                "flat over it": found["flat"]["one, ours"] / one["one, ours"],
                "recall@10": recall(one["found"]["ours"], truth),
                "faiss' recall": recall(one["found"]["plain"], truth),
            }
        )
        one["found"] = None
    finish(
        "search", args, {f"{num} x {args.dim}, {args.repeats} turns, {args.threads} threads": table}, found
    )


if __name__ == "__main__":
    main()
