"""The drop-in for fast-reid's evaluator gives fast-reid's numbers in fast-reid's loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fastreid.evaluation import ReidEvaluator, inference_on_dataset
from torch import nn

from dnreid_plugins.data.loaders import build_inference_loader
from dnreid_plugins.patches.reid_evaluator import DomainReidEvaluator


def fill(evaluator: Any, *, queries: int = 30, gallery: int = 90, seed: int = 0, shift: float = 0.0) -> Any:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 6, queries + gallery)
    features = torch.from_numpy(rng.normal(size=(6, 8))[ids] + rng.normal(size=(len(ids), 8)) + shift)
    cams = rng.integers(0, 3, len(ids))
    evaluator.reset()
    for part in np.array_split(np.arange(len(ids)), 7):
        evaluator.process(
            {"targets": torch.from_numpy(ids[part]), "camids": torch.from_numpy(cams[part])}, features[part]
        )
    return evaluator.evaluate()


class Python(ReidEvaluator):
    """fast-reid's, without its compiler."""

    def _compile_dependencies(self) -> None:
        pass


@pytest.mark.filterwarnings("ignore:This overload of addmm_")
@pytest.mark.parametrize(("metric", "aqe"), [("cosine", False), ("euclidean", False), ("cosine", True)])
def test_equal_to_fastreid(cfg, metric: str, aqe: bool) -> None:
    cfg.TEST.METRIC, cfg.TEST.AQE.ENABLED = metric, aqe
    expected = fill(Python(cfg, 30))
    result = fill(DomainReidEvaluator(cfg, 30))
    assert dict(result) == pytest.approx(dict(expected), abs=1e-4)
    assert list(result) == list(expected) and all(type(value) is float for value in result.values())


def test_fastreids_loop_drives_it(model: nn.Module, items, cfg) -> None:
    class Graph(nn.Module):
        def forward(self, batch: dict[str, Any]) -> torch.Tensor:
            return model(batch)

    model.eval()
    result = inference_on_dataset(Graph(), build_inference_loader(cfg, items), DomainReidEvaluator(cfg, 10))
    assert 0 < result["mAP"] <= 100 and result["metric"] == (result["mAP"] + result["Rank-1"]) / 2


def test_small_galleries_and_reranking_work_on_the_cpu(cfg) -> None:
    cfg.TEST.RERANK.ENABLED = cfg.TEST.ROC.ENABLED = True
    result = fill(DomainReidEvaluator(cfg, 30), gallery=12)
    assert {"Rank-10", "TPR@FPR=1e-02"} <= set(result)


def test_refusals(cfg) -> None:
    for queries in (0, 120):
        with pytest.raises(ValueError, match=f"{queries} queries among 120"):
            fill(DomainReidEvaluator(cfg, queries))
    with pytest.raises(ValueError, match="NaN"):
        fill(DomainReidEvaluator(cfg, 30), shift=float("nan"))
    evaluator = DomainReidEvaluator(cfg, 1)
    for index in ([0, 1], [3, 2]):
        inputs = {
            "targets": torch.tensor([0, 0]),
            "camids": torch.tensor([0, 1]),
            "indices": torch.tensor(index),
        }
        evaluator.process(inputs, torch.eye(2))
    with pytest.raises(ValueError, match="shuffles"):
        evaluator.evaluate()
