"""Evaluate on every set of ``DATASETS.TESTS``: by our protocols, or by fast-reid's loop for a script's own methods."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from fastreid.evaluation import inference_on_dataset
from fastreid.utils import comm
from torch import nn

from ..data.datasets import configure as configure_datasets
from ..data.train_data import scored_datasets
from ..evaluation.evaluator import evaluate
from ..evaluation.extraction import evaluating
from ..evaluation.results import log_results, update_results
from ..runtime.agreement import computed_once
from ..runtime.logs import setup_logs
from .overrides import overridden

logger = logging.getLogger(__name__)

Results = OrderedDict[str, Any]


def run_test(trainer: Any, cfg: Any, model: nn.Module, *, base: type) -> dict[str, Any]:
    """The trainer's ``test``: evaluate, log the table, write ``results.json``.

    ``{data set: {direction: {metric: percent}}}``. A subclass of ``base`` that overrides ``build_evaluator`` or
    ``build_test_loader`` is evaluated with these by fast-reid's loop and gets what fast-reid returns:
    ``{metric: value}`` for a single set, else by data set.
    """
    setup_logs(cfg.OUTPUT_DIR)
    own = overridden(trainer, base, ("build_evaluator", "build_test_loader"))
    results = evaluate_by_loop(trainer, cfg, model) if own else evaluate_all(cfg, model)
    if comm.is_main_process():
        log_results(cfg.OUTPUT_DIR, cfg.DATASETS.TESTS, results)
        update_results(cfg.OUTPUT_DIR, **results)
    return next(iter(results.values())) if own and len(results) == 1 else results


def evaluate_all(cfg: Any, model: nn.Module) -> Results:
    """``{data set: {direction: {metric: percent}}}`` for every set of ``DATASETS.TESTS`` that can be scored."""
    configure_datasets(cfg)
    return OrderedDict((name, evaluate(model, data, cfg)) for name, data in scored_datasets(cfg).items())


def evaluate_by_loop(trainer: Any, cfg: Any, model: nn.Module) -> Results:
    """``{data set: {metric: value}}`` by fast-reid's loop with ``trainer.build_evaluator``, in every process.

    A set for which it raises NotImplementedError has no metrics, as in fast-reid.
    """
    configure_datasets(cfg)
    results: Results = OrderedDict()
    for name in scored_datasets(cfg):
        try:
            loader, evaluator = trainer.build_evaluator(cfg, name)
        except NotImplementedError:
            logger.warning("%s has no evaluator for %s, so it is not scored.", trainer.__name__, name)
            results[name] = {}
            continue
        with evaluating(model):
            found = inference_on_dataset(model, loader, evaluator, flip_test=cfg.TEST.FLIP.ENABLED)
        results[name] = computed_once(partial(numbers, found))
    return results


def by_set(results: Any, tests: Sequence[str]) -> dict[str, Any]:
    """The return value of a ``test`` method by data set: with one set fast-reid's returns only its metrics."""
    found = numbers(results or {})
    return {tests[0]: found} if len(tests) == 1 and tests[0] not in found else found


def numbers(results: Mapping[str, Any]) -> dict[str, Any]:
    """``results`` with plain floats, for a file; values that are not single numbers are left out."""
    found: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            found[key] = numbers(value)
            continue
        try:
            found[key] = value if isinstance(value, int) else float(value)
        except (TypeError, ValueError, RuntimeError):
            logger.warning(
                "The evaluation gives %r for %s, which is not a number and is left out.", value, key
            )
    return found
