"""The search for neighbours dealt to 1, 2 and more processes of one machine, one thread each, which meet on gloo.

Features lie once in shared memory, as in training. Seconds are from a barrier until the slowest process has the whole
table; the tables are compared bit for bit. With more processes than cores they only show what sharing costs.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from bench_labels import K1
from measure import GIB, Job, Report, Work, finish, interleaved, parser, say
from synthetic import clustered

from dnreid_plugins.functional.neighbours.knn import knn_table
from dnreid_plugins.runtime.agreement import peers
from dnreid_plugins.runtime.group import Member, joined


def member(rank: int, count: int, features: torch.Tensor, place: str, answers: Any) -> None:
    """One process: the whole table's digest, seconds and processor seconds go to ``answers``."""
    torch.set_num_threads(1)
    with joined(Member(rank, count, rank, 0, place), device="cpu"):
        knn_table(features[:600].clone(), K1)  # compiles the loops
        dist.barrier()
        start, spent = time.perf_counter(), time.process_time()
        found = knn_table(features, K1, peers=peers())
        own = time.process_time() - spent
        dist.barrier()
        digest = hashlib.sha256(found.indices.tobytes()).hexdigest()
        answers.put((digest, time.perf_counter() - start, own))


def searched(num: int, dim: int, processes: int) -> Work:
    """Job: the processes from their start on; what counts are their own seconds."""
    features = clustered(num, dim).share_memory_()

    def work() -> Report:
        context = mp.get_context("spawn")
        answers = context.SimpleQueue()
        with tempfile.TemporaryDirectory() as folder:
            place = f"file://{Path(folder) / 'meet'}"
            mp.spawn(member, (processes, features, place, answers), nprocs=processes)
        found = [answers.get() for _ in range(processes)]
        assert len({digest for digest, *_ in found}) == 1, "the processes have different tables"
        return {
            "search_seconds": max(seconds for _, seconds, _ in found),
            "processor_seconds": sum(own for *_, own in found),
            "table": found[0][0],
        }

    return work


def main() -> None:
    options = parser(__doc__, repeats=2)
    options.add_argument("--sizes", type=int, nargs="+", default=[10_000, 35_000])
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    args = options.parse_args()
    if args.quick:
        args.sizes, args.dim, args.repeats = [700], 32, 1
    args.threads = 1
    os.environ.update(OMP_NUM_THREADS="1", NUMBA_NUM_THREADS="1")
    rows, raw = [], {}
    for num in args.sizes:
        jobs = {
            str(count): Job(__file__, "searched", {"num": num, "dim": args.dim, "processes": count})
            for count in args.processes
        }
        say(f"{num} x {args.dim}, features {4 * num * args.dim / GIB:.2f} GiB")
        raw[str(num)] = found = interleaved(jobs, args, repeats=args.repeats)
        first = found[str(args.processes[0])]
        assert len({one["table"] for one in found.values()}) == 1, "the number of processes changes the table"
        rows += [
            {
                "N": num,
                "processes": count,
                "search s": found[str(count)]["search_seconds"],
                "times as fast": first["search_seconds"] / found[str(count)]["search_seconds"],
                "processor s of all": found[str(count)]["processor_seconds"],
            }
            for count in args.processes
        ]
    finish("processes", args, {"One search for neighbours, shared": rows}, raw)


if __name__ == "__main__":
    main()
