"""What ``tools/train_net.py`` does: fast-reid's command line and life cycle, errors in one sentence."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from typing import Any

from fastreid.config import CfgNode, get_cfg
from fastreid.engine import default_argument_parser, default_setup
from fastreid.modeling.meta_arch import build_model
from tabulate import tabulate

from .checkpoint import AtomicCheckpointer
from .config_merge import merge_with_suggestions
from .distributed import launch
from .label_phase import NothingClusteredError
from .logs import quiet_screen, setup_logs
from .preflight import check
from .results import read_results
from .trainer import CrossDomainTrainer

# What a user can cause and mend; anything else is our mistake and keeps its traceback.
USER_ERRORS = (ValueError, FileNotFoundError, NothingClusteredError, FloatingPointError)


def main(argv: list[str] | None = None) -> Any:
    """Run one job; exits with code 1 and one sentence on anything the user can mend."""
    args = default_argument_parser().parse_args(argv)
    try:
        return launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except USER_ERRORS as error:
        logging.getLogger(__name__).debug("the error's place", exc_info=True)
        sys.exit(f"error: {error}")


def run(args: Namespace) -> Any:
    """One process of the job; returns the results."""
    cfg = setup(args)
    if args.eval_only:
        model = build_model(cfg)
        AtomicCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        results = CrossDomainTrainer.test(cfg, model)
    else:
        trainer = CrossDomainTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        results = trainer.train()
    report(cfg)
    return results


def setup(args: Namespace) -> CfgNode:
    """Config from file and command line, checked; logs go to ``OUTPUT_DIR/log.txt``."""
    cfg = get_cfg()
    merge_with_suggestions(cfg, args.config_file, args.opts)
    if args.eval_only:
        cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.freeze()
    check(cfg, eval_only=args.eval_only)
    setup_logs(cfg.OUTPUT_DIR)
    with quiet_screen():
        default_setup(cfg, args)
    return cfg


def report(cfg: CfgNode) -> None:
    """Log before/after metrics of every set and direction as one table."""
    results = read_results(cfg.OUTPUT_DIR)
    rows = []
    for name in cfg.DATASETS.TESTS:
        start = results.get("start", {}).get(name, {})
        for direction, after in results.get(name, {}).items():
            if not isinstance(after, dict):
                continue
            before = start.get(direction, {})
            for when, metrics in (("before", before), ("after", after)):
                if metrics:
                    rows.append([name, direction, when, *[metrics.get(k) for k in COLUMNS]])
    table = tabulate(
        rows, headers=["set", "direction", "training", *COLUMNS], floatfmt=".2f", tablefmt="github"
    )
    logging.getLogger(__name__).info("Results in percent (%s/results.json):\n%s", cfg.OUTPUT_DIR, table)


COLUMNS = ("Rank-1", "Rank-5", "Rank-10", "mAP", "mINP")
