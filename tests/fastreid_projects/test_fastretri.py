"""FastRetri: image retrieval on CUB, Cars, SOP and InShop."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import fastreid.engine
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.data import build_reid_test_loader
from fastreid.data.common import CommDataset
from fastreid.data.transforms import build_transforms
from fastreid.evaluation import DatasetEvaluator


class Recalls(DatasetEvaluator):
    """Every image is a query among all others; labels are words."""

    def reset(self) -> None:
        self.features: list[torch.Tensor] = []
        self.labels: list[str] = []

    def process(self, inputs: dict[str, Any], outputs: torch.Tensor) -> None:
        self.features.append(outputs.cpu())
        self.labels.extend(inputs["targets"])

    def evaluate(self) -> OrderedDict[str, Any]:
        features, labels = F.normalize(torch.cat(self.features)), np.asarray(self.labels)
        nearest = (features @ features.t()).fill_diagonal_(-2.0).argsort(dim=1, descending=True).numpy()
        results: OrderedDict[str, Any] = OrderedDict()
        for k in (1, 2):
            hit = (labels[nearest[:, :k]] == labels[:, None]).any(1)
            results[f"Recall@{k}"] = round(hit.mean() * 100, 2)
        results["metric"] = results["Recall@1"]
        return results


def test_recall_in_place_of_ranks(
    cfg: CfgNode, pictures: Any, run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Patched: `Recall@k` of its own evaluator is reported, instead of our own ranking."""

    class Trainer(fastreid.engine.DefaultTrainer):
        @classmethod
        def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
            items = [(path, name, "0") for path, name in pictures]
            test_set = CommDataset(items, build_transforms(cfg, is_train=False), relabel=False)
            return build_reid_test_loader(cfg, test_set=test_set, num_query=len(items))

        @classmethod
        def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
            return cls.build_test_loader(cfg, dataset_name)[0], Recalls()

    with caplog.at_level("INFO"):
        found = run(Trainer, cfg)["DN348"]
    assert list(found) == ["Recall@1", "Recall@2", "metric"] and found["Recall@1"] <= found["Recall@2"]
    assert "Recall@2" in caplog.text and "Rank-1" not in caplog.text


def test_its_search_needs_faiss_on_a_gpu() -> None:
    """Dead upstream: its recall asks faiss for a GPU (`StandardGpuResources`), which the package faiss-cpu lacks."""
    faiss = pytest.importorskip("faiss")
    if hasattr(faiss, "StandardGpuResources"):
        pytest.skip("this faiss has a GPU")
    with pytest.raises(AttributeError):
        faiss.StandardGpuResources()
