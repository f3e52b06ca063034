"""What ``tools/train_net.py`` does: fast-reid's command line and life cycle, errors in one sentence."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import torch
from fastreid.config import CfgNode, get_cfg
from fastreid.engine import default_argument_parser
from fastreid.modeling.meta_arch import build_model
from fastreid.utils import comm
from fastreid.utils.collect_env import collect_env_info
from fastreid.utils.env import seed_all_rng

from .checkpoint import AtomicCheckpointer
from .config_merge import merge_with_suggestions
from .devices import use_device
from .distributed import launch
from .files import write_atomically
from .label_phase import NothingClusteredError
from .logs import quiet_screen, setup_logs
from .preflight import check
from .trainer import CrossDomainTrainer

# What a user can cause and mend, a full disk or a forbidden folder (OSError) included; anything else is our mistake
# and keeps its traceback.
USER_ERRORS = (ValueError, OSError, NothingClusteredError, FloatingPointError)


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
        sys.exit(f"error: {sentence_of(error)}")


def sentence_of(error: BaseException) -> str:
    """What to tell the user; an error of the system's own gets the file, where it is known, and a way out."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    where = "A file" if error.filename is None else str(error.filename)
    return (
        f"{where} cannot be read or written ({error.strerror}); correct the path, or free some space and go on "
        "with --resume."
    )


def run(args: Namespace) -> Any:
    """One process of the job; returns the results."""
    cfg = setup(args)
    if args.eval_only:
        use_device(cfg.MODEL.DEVICE)
        model = build_model(cfg)
        AtomicCheckpointer(model).load(cfg.MODEL.WEIGHTS)
        keep_config(cfg)
        results = CrossDomainTrainer.test(cfg, model)
    else:
        trainer = CrossDomainTrainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        keep_config(cfg)
        results = trainer.train()
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
        log_start(cfg, args)
    return cfg


def log_start(cfg: CfgNode, args: Namespace) -> None:
    """fast-reid's ``default_setup`` without ``config.yaml``: a resume that is refused must not replace the run's."""
    logger = logging.getLogger("fastreid")
    logger.info("Rank of current process: %d. World size: %d", comm.get_rank(), comm.get_world_size())
    logger.info("Environment info:\n%s", collect_env_info())
    logger.info("Command line arguments: %s", args)
    if args.config_file:
        text = Path(args.config_file).read_text()
        logger.info("Contents of args.config_file=%s:\n%s", args.config_file, text)
    logger.info("Running with full config:\n%s", cfg)
    seed_all_rng(cfg.SEED)
    if not args.eval_only:
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK


def keep_config(cfg: CfgNode) -> None:
    """Write ``OUTPUT_DIR/config.yaml``, complete or not at all."""
    if cfg.OUTPUT_DIR and comm.is_main_process():
        folder = Path(cfg.OUTPUT_DIR)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "config.yaml", lambda file: file.write(cfg.dump().encode()))
