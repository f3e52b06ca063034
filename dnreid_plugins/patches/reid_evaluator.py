"""fast-reid's evaluator for its own test loop, without compilation, full distance matrix and wrong results."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from fastreid.evaluation import ReidEvaluator
from fastreid.utils import comm
from torch import Tensor

from ..evaluation.scoring import ScoreOptions, Side, score


class DomainReidEvaluator(ReidEvaluator):
    """Drop-in for ``ReidEvaluator``: the first ``num_query`` images are queries, the others the gallery.

    Same numbers as fast-reid's, with fast-reid's camera rule; differences: nothing is compiled, small
    galleries work, ranking is done in blocks, re-ranking and query expansion run on the CPU, ``TPR@FPR`` is the
    share of true pairs accepted, features that are NaN or all the same are refused, queries without a match
    are counted in the log.

    Args:
        cfg: ``TEST`` is used.
        num_query: number of queries, the first images of the loader.
        output_dir: unused, as in fast-reid.
    """

    def __init__(self, cfg: Any, num_query: int, output_dir: str | None = None) -> None:
        self.cfg = cfg
        self._options = ScoreOptions.from_config(cfg)
        self._num_query = num_query
        self._output_dir = output_dir
        self._predictions: list[dict[str, Tensor]] = []

    def reset(self) -> None:
        self._predictions = []

    def process(self, inputs: dict[str, Any], outputs: Tensor) -> None:
        prediction = {"feats": outputs.detach().float().cpu()}
        for key, name in (("pids", "targets"), ("camids", "camids"), ("indices", "indices")):
            if name in inputs:
                prediction[key] = torch.as_tensor(inputs[name]).cpu()
        self._predictions.append(prediction)

    def evaluate(self) -> OrderedDict[str, float]:
        """Flat percentages; ``metric`` is the mean of mAP and Rank-1. Empty in all but the main process.

        Raises:
            ValueError: no image is left for queries or gallery, the loader shuffled them, or the features
                cannot be ranked.
        """
        predictions = self._predictions
        if comm.get_world_size() > 1:
            comm.synchronize()
            predictions = list(itertools.chain(*comm.gather(predictions, dst=0)))
            if not comm.is_main_process():
                return OrderedDict()
        total = sum(len(prediction["feats"]) for prediction in predictions)
        if not 0 < self._num_query < total:
            raise ValueError(
                f"{self._num_query} queries among {total} test images leave no query or no gallery; check the data set"
            )
        joined = {key: torch.cat([one[key] for one in predictions]) for key in predictions[0]}
        if "indices" in joined and not bool((joined["indices"].diff() > 0).all()):
            raise ValueError("the test loader shuffles its images; use one that keeps their order")
        parts = slice(None, self._num_query), slice(self._num_query, None)
        query, gallery = (
            Side(joined["feats"][part], _integers(joined["pids"][part]), _integers(joined["camids"][part]))
            for part in parts
        )
        results = OrderedDict(score(query, gallery, options=self._options))
        results["metric"] = (results["mAP"] + results["Rank-1"]) / 2
        return results


def _integers(values: Tensor) -> np.ndarray:
    return values.numpy().astype(np.int64)
