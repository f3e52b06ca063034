"""An epoch of every system on the embedded data set, beside an epoch of Base: its labels, its steps and its memory.

The epoch is the first after the middle: all parts have begun and none has ended. Each system is trained by its
own config in a process of its own, system after system, as often as ``--repeats`` says; a step and a label
phase count with the shortest of the repeats. Seconds are processor seconds, so with ``--threads 1`` other work
on the machine changes them little.
"""

from __future__ import annotations

import os
import time
from typing import Any

from fastreid.config import get_cfg
from fastreid.utils.events import EventStorage
from measure import Job, Report, Work, finish, interleaved, parser

import dnreid_plugins  # noqa: F401
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.config_files import merge_with_suggestions
from dnreid_plugins.runtime.shipped import config_names, find_config

BASE = "CIA/dnmini/base"
#: Of another network, so nothing beside Base says how much the method costs.
OTHER_NETWORK = "BridgingDayNight"


def systems() -> list[str]:
    """Base, then the config of every other system."""
    found = [
        name for name in config_names() if name.endswith("/dnmini") and not name.startswith(OTHER_NETWORK)
    ]
    return [BASE, *found]


def epoch(config: str, opts: list[str], steps: int) -> Work:
    """Job: the label phase of the epoch and ``steps`` of its steps."""
    cfg = get_cfg()
    merge_with_suggestions(
        cfg, str(find_config(config)), [*opts, "OUTPUT_DIR", "", "TEST.EVAL_START", "False"]
    )
    trainer: Any = CrossDomainTrainer(cfg)
    trainer.resume_or_load()

    def work() -> Report:
        trainer.epoch = trainer.max_epoch // 2
        trainer.iter = trainer.start_iter = trainer.epoch * trainer.iters_per_epoch
        with EventStorage(trainer.iter) as trainer.storage:
            trainer.before_train()
            start = time.process_time()
            trainer.before_epoch()
            labels = time.process_time() - start
            trainer.run_step()
            trainer.after_step()
            times = []
            for _ in range(steps):
                start = time.process_time()
                trainer.before_step()
                trainer.run_step()
                trainer.after_step()
                times.append(time.process_time() - start)
            trainer.after_train()
        return {
            "label_seconds": labels,
            "step_seconds": min(times),
            "iterations": trainer.iters_per_epoch,
            "streams": len(trainer.parts.streams_now),
        }

    return work


def rows(reports: dict[str, Report]) -> list[dict[str, Any]]:
    """One row per system."""
    found = []
    cost = {n: r["label_seconds"] + r["iterations"] * r["step_seconds"] for n, r in reports.items()}
    for name, one in reports.items():
        found.append(
            {
                "system": name,
                "steps per iteration": one["streams"],
                "iteration s": one["step_seconds"],
                "labels s": one["label_seconds"],
                "epoch s": cost[name],
                "epoch beside Base": cost[name] / cost[BASE],
                "peak GiB": one["peak_gib"],
            }
        )
    return found


def main() -> None:
    args = parser(__doc__, repeats=2).parse_args()
    os.environ.setdefault("FASTREID_DATASETS", "datasets")
    names, steps = systems(), 8
    opts: list[str] = []
    if args.quick:
        # Base alone on the few images in $FASTREID_DATASETS/dn348.
        names, steps = [BASE], 1
        opts = ["DATASETS.NAMES", "('DN348',)", "DATASETS.TESTS", "('DN348',)", "SOLVER.IMS_PER_BATCH", "16"]
        opts += ["CLUSTER.K1", "5", "CLUSTER.MIN_SAMPLES", "2"]
    jobs = {n: Job(__file__, "epoch", {"config": n, "opts": opts, "steps": steps}) for n in names}
    reports = interleaved(jobs, args, repeats=1 if args.quick else args.repeats)
    finish("systems", args, {"An epoch of every system": rows(reports)}, reports)


if __name__ == "__main__":
    main()
