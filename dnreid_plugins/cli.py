"""The command of ``tools/train_net.py``: fast-reid's command line and life cycle, errors in one sentence."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

from fastreid.config import CfgNode, get_cfg
from fastreid.engine import default_argument_parser
from fastreid.modeling.meta_arch import build_model
from fastreid.utils import comm

from .engine.evaluation_file import Evaluation, evaluating_alone, log_folder
from .engine.identity import begin_job
from .engine.preflight.training import check
from .engine.trainer import CrossDomainTrainer
from .report.at_end import reporting
from .report.page.settings import keep_environment
from .runtime.config_files import merge_with_suggestions
from .runtime.devices import use_device
from .runtime.files import write_atomically
from .runtime.launch import launch
from .runtime.logs import log_start, quiet_screen, setup_logs
from .runtime.run_lock import unlock_folder
from .runtime.sentences import sentences
from .runtime.shipped import EXAMPLE, config_path, find_config

logger = logging.getLogger(__name__)


def main(argv: list[str] | None = None) -> Any:
    """Run one job; exits with code 1 and one sentence on errors that the user can fix."""
    words = sys.argv[1:] if argv is None else argv
    if not words:
        sys.exit(
            "error: no config was named; give one and KEY VALUE pairs after it, such as --config-file "
            f"{config_path(EXAMPLE)} OUTPUT_DIR logs/first (`python -m dnreid_plugins list configs` names all)."
        )
    args = default_argument_parser().parse_args(words)
    with sentences():
        return launch(
            run,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )


def run(args: Namespace) -> Any:
    """One process of the job; returns the results."""
    cfg = setup(args)
    if args.eval_only:
        use_device(cfg.MODEL.DEVICE)
        # First, since it names a key of the config where the weights could only say that they do not fit.
        evaluation = Evaluation(cfg)
        model = build_model(cfg)
        evaluation.load(model)
        with evaluating_alone(evaluation):
            return CrossDomainTrainer.test(cfg, model)
    try:
        trainer = CrossDomainTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        keep_config(cfg)
        keep_environment(cfg.OUTPUT_DIR, args)
        with reporting(trainer):
            return trainer.train()
    finally:
        unlock_folder(cfg.OUTPUT_DIR)


def setup(args: Namespace) -> CfgNode:
    """Config from file and command line, checked; logs go to ``OUTPUT_DIR/log.txt``, those of an evaluation below."""
    cfg = get_cfg()
    if args.config_file:
        args.config_file = str(find_config(args.config_file))
    merge_with_suggestions(cfg, args.config_file, args.opts)
    if args.eval_only:
        cfg.MODEL.BACKBONE.PRETRAIN = False
    cfg.freeze()
    check(cfg, eval_only=args.eval_only)
    begin_job(cfg, lock=not args.eval_only)
    setup_logs(log_folder(cfg) if args.eval_only else cfg.OUTPUT_DIR)
    with quiet_screen():
        log_start(cfg, args)
    if "DATASETS.NAMES" in args.opts and "DATASETS.TESTS" not in args.opts:
        text = "The command line sets DATASETS.NAMES but not TESTS; the evaluation uses DATASETS.TESTS %s."
        logging.getLogger(__name__).info(text, cfg.DATASETS.TESTS)
    return cfg


def keep_config(cfg: CfgNode) -> None:
    """Write ``OUTPUT_DIR/config.yaml``, complete or not at all."""
    if cfg.OUTPUT_DIR and comm.is_main_process():
        folder = Path(cfg.OUTPUT_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.yaml", lambda file: file.write(cfg.dump().encode()))
