"""Evaluate on every set of ``DATASETS.TESTS``: by our protocols, or by fast-reid's loop for a script's own methods."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from fastreid.evaluation import inference_on_dataset
from fastreid.utils import comm
from torch import nn

from ..data.datasets import configure as configure_datasets
from ..data.train_data import scored_datasets
from ..evaluation.evaluator import evaluate, evaluation_set, in_words
from ..evaluation.extraction import evaluating
from ..evaluation.results import log_results, read_results, update_results
from ..evaluation.unscored import report_label_quality
from ..runtime.agreement import computed_once
from ..runtime.logs import setup_logs
from .evaluation_file import evaluation_of
from .identity import running
from .overrides import overridden

logger = logging.getLogger(__name__)

Results = OrderedDict[str, Any]


def run_test(trainer: Any, cfg: Any, model: nn.Module, *, base: type) -> dict[str, Any]:
    """The trainer's ``test``: evaluate, log the table, keep the figures.

    While a run trains, they go into its ``results.json``; else into a file of ``OUTPUT_DIR/evaluations``, after a
    check that ``cfg`` makes the features that the run of ``MODEL.WEIGHTS`` made (`Evaluation`).

    ``{data set: {direction: {metric: percent}}}``. A subclass of ``base`` that overrides ``build_evaluator`` or
    ``build_test_loader`` is evaluated with these by fast-reid's loop and gets what fast-reid returns:
    ``{metric: value}`` for a single set, else by data set.
    """
    run = running()
    evaluation = evaluation_of(cfg) if run is None else None
    if evaluation is not None:
        setup_logs(evaluation.folder)
    sets, protocols = see_sets(cfg, (evaluation or run).see)  # type: ignore[union-attr]
    own = overridden(trainer, base, ("build_evaluator", "build_test_loader"))
    results = evaluate_by_loop(trainer, cfg, model, sets) if own else evaluate_all(cfg, model, sets)
    if comm.is_main_process():
        if evaluation is None:
            update_results(cfg.OUTPUT_DIR, **results, protocol=protocols)
            log_run(cfg, results)
        else:
            log_results(evaluation.keep(model, protocols, results), cfg.DATASETS.TESTS, results)
    return next(iter(results.values())) if own and len(results) == 1 else results


def see_sets(cfg: Any, see: Callable[[str, list[Any]], None]) -> tuple[dict[str, Any], dict[str, str]]:
    """The sets of ``DATASETS.TESTS`` that can be scored and their protocols in words; ``see`` gets name and items."""
    configure_datasets(cfg)
    sets, protocols = scored_datasets(cfg), {}
    for name, dataset in sets.items():
        items, protocol = evaluation_set(dataset)
        see(name, items)
        protocols[name] = in_words(protocol, cfg)
    return sets, protocols


def log_run(cfg: Any, results: Mapping[str, Any]) -> None:
    """Log the newest ``results`` of a run beside those of its start."""
    start = read_results(cfg.OUTPUT_DIR).get("start")
    where = f"{cfg.OUTPUT_DIR}/results.json" if cfg.OUTPUT_DIR else ""
    log_results(where, cfg.DATASETS.TESTS, results, start=start)
    if not any(results.values()):
        report_label_quality(cfg.OUTPUT_DIR)


def evaluate_all(cfg: Any, model: nn.Module, sets: Mapping[str, Any]) -> Results:
    """``{data set: {direction: {metric: percent}}}`` for every one of ``sets``."""
    return OrderedDict((name, evaluate(model, data, cfg, name=name)) for name, data in sets.items())


def evaluate_by_loop(trainer: Any, cfg: Any, model: nn.Module, sets: Mapping[str, Any]) -> Results:
    """``{data set: {metric: value}}`` by fast-reid's loop with ``trainer.build_evaluator``, in every process.

    A set for which it raises NotImplementedError has no metrics, as in fast-reid.
    """
    results: Results = OrderedDict()
    for name in sets:
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
