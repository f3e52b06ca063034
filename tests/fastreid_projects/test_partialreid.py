"""PartialReID: partially visible persons, with DSR."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import fastreid.engine
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.data.datasets import DATASET_REGISTRY
from fastreid.data.datasets.bases import ImageDataset
from fastreid.evaluation.evaluator import DatasetEvaluator
from fastreid.evaluation.rank import evaluate_rank
from fastreid.modeling.heads import EmbeddingHead
from fastreid.modeling.heads.build import REID_HEADS_REGISTRY
from torch import Tensor


@REID_HEADS_REGISTRY.register()
class MiniDSRHead(EmbeddingHead):
    def forward(self, features: Tensor, targets: Tensor | None = None) -> Any:
        outputs = super().forward(features, targets)
        return outputs if self.training else (outputs, F.max_pool2d(features, 2).flatten(2))


@DATASET_REGISTRY.register()
class MiniPartial(ImageDataset):
    """Nothing to train on; query and gallery."""

    def __init__(self, root: str = "datasets") -> None:
        paths = sorted((Path(root) / "dn348" / "day").glob("*/*.png"))
        items = [[str(path), int(path.parent.name), int(path.stem) % 2] for path in paths]
        super().__init__([], items[::3], items)


@DATASET_REGISTRY.register()
class MiniOccluded(MiniPartial):
    pass


class SpatialEvaluator(DatasetEvaluator):
    def __init__(self, num_query: int) -> None:
        self.num_query = num_query

    def reset(self) -> None:
        self.features: list[Tensor] = []
        self.pids: list[Any] = []
        self.camids: list[Any] = []

    def process(self, inputs: dict[str, Any], outputs: tuple[Tensor, Tensor]) -> None:
        self.pids.extend(inputs["targets"])
        self.camids.extend(inputs["camids"])
        self.features.append(F.normalize(outputs[0] + outputs[1].mean(2)).cpu())

    def evaluate(self) -> OrderedDict[str, Any]:
        features, n = torch.cat(self.features), self.num_query
        pids, cams = np.asarray(self.pids), np.asarray(self.camids)
        distances = 1 - (features[:n] @ features[n:].t()).numpy()
        cmc, precisions, _ = evaluate_rank(distances, pids[:n], pids[n:], cams[:n], cams[n:])
        return OrderedDict([("Rank-1", cmc[0] * 100), ("mAP", np.mean(precisions) * 100)])


def test_outputs_that_are_tuples(cfg: CfgNode, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Patched: a model that returns a tuple of features is scored by its own evaluator on each of its test sets."""
    monkeypatch.setattr("fastreid.data.build._root", __import__("os").environ["FASTREID_DATASETS"])

    class Trainer(fastreid.engine.DefaultTrainer):
        @classmethod
        def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
            loader, num_query = cls.build_test_loader(cfg, dataset_name)
            return loader, SpatialEvaluator(num_query)

    cfg.MODEL.HEADS.NAME, cfg.DATASETS.TESTS = "MiniDSRHead", ("MiniPartial", "MiniOccluded")
    found = run(Trainer, cfg)
    assert set(found["MiniPartial"]) == set(found["MiniOccluded"]) == {"Rank-1", "mAP"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="it works with CUDA")
def test_dsr_needs_cuda() -> None:
    """Dead upstream: DSR's distances call `.cuda()` and need a gallery of 100 images or more; on a CPU set
    `TEST.DSR.ENABLED` False."""
    with pytest.raises((RuntimeError, AssertionError)):
        torch.ones(2, 2).cuda()
