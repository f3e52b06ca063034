"""The command of ``tools/train_net.py``: fast-reid's command line and life cycle, errors in one sentence."""

from __future__ import annotations

import contextlib
import errno
import logging
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastreid.config import CfgNode, get_cfg
from fastreid.engine import default_argument_parser
from fastreid.modeling.meta_arch import build_model
from fastreid.utils import comm

from .data.errors import lost_worker
from .engine.evaluation_file import Evaluation, evaluating_alone, log_folder
from .engine.identity import begin_job
from .engine.preflight.training import check
from .engine.trainer import CrossDomainTrainer
from .labels import NothingClusteredError
from .report.at_end import reporting
from .report.page.settings import keep_environment
from .runtime.config_files import merge_with_suggestions
from .runtime.devices import use_device
from .runtime.files import write_atomically
from .runtime.launch import launch
from .runtime.logs import log_start, quiet_screen, setup_logs
from .runtime.run_lock import unlock_folder
from .runtime.shipped import EXAMPLE, config_path, find_config
from .runtime.signals import ending_with_a_sentence

logger = logging.getLogger(__name__)

# Errors that a user can cause and fix, including a full disk or missing permissions (OSError); any other error is a
# bug and keeps its traceback.
USER_ERRORS = (ValueError, OSError, MemoryError, NothingClusteredError, FloatingPointError)


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


@contextlib.contextmanager
def sentences(*, ours_only: bool = False) -> Iterator[None]:
    """Inside, an error that the user can fix ends the process with code 1 and one sentence; the log file gets its
    traceback.

    ``ours_only``: errors raised by other code than ours, e.g. the user's script, are not changed.
    """
    try:
        with ending_with_a_sentence():
            yield
    except (*USER_ERRORS, RuntimeError) as error:
        expected = error if isinstance(error, USER_ERRORS) else lost_worker(error) or out_of_memory(error)
        if expected is None or (ours_only and expected is error and not _is_ours(error)):
            raise
        logger.debug("traceback of the error", exc_info=True)
        sys.exit(f"error: {sentence_of(expected)}")


def _is_ours(error: BaseException) -> bool:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__", "").startswith("dnreid_plugins.")


def out_of_memory(error: BaseException) -> MemoryError | None:
    """torch's and the system's words for a lack of memory as Python's own; None for any other error."""
    text = next(iter(str(error).splitlines()), "")
    words = ("out of memory", "can't allocate memory", "not enough memory", "can't start new thread")
    return MemoryError(text[:200]) if any(word in text for word in words) else None


def sentence_of(error: BaseException) -> str:
    """What to tell the user; an error of the system's own gets the file, where it is known, and a way out."""
    if isinstance(error, MemoryError):
        reason = str(error) or "Python could get no more"
        return (
            f"Memory ran out ({reason}); lower SOLVER.IMS_PER_BATCH, TEST.IMS_PER_BATCH or DATALOADER.NUM_WORKERS, or "
            "give the process more (ulimit -v)."
        )
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return (
            "Too many files are open; raise the limit with `ulimit -n 4096` or lower DATALOADER.NUM_WORKERS."
        )
    if error.errno == errno.ENOMEM:
        return sentence_of(MemoryError(error.strerror))
    where = "A file" if error.filename is None else str(error.filename)
    return (
        f"{where} cannot be read or written ({error.strerror}); correct the path, or free some space and continue "
        "with --resume."
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
