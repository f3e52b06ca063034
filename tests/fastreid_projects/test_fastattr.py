"""FastAttr: attributes of pedestrians, several labels per image."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import fastreid.engine
import pytest
import torch
import torch.nn.functional as F
from fastreid.config import CfgNode
from fastreid.data import build_reid_test_loader, build_reid_train_loader
from fastreid.data.common import CommDataset
from fastreid.data.transforms import build_transforms
from fastreid.evaluation.evaluator import DatasetEvaluator
from fastreid.modeling.heads import EmbeddingHead
from fastreid.modeling.heads.build import REID_HEADS_REGISTRY
from fastreid.modeling.meta_arch import META_ARCH_REGISTRY, Baseline
from torch import Tensor, nn

ATTRIBUTES = 3


@META_ARCH_REGISTRY.register()
class MiniAttrBaseline(Baseline):
    def losses(self, outputs: dict[str, Tensor], gt_labels: Tensor) -> dict[str, Tensor]:
        loss = F.binary_cross_entropy_with_logits(outputs["logits"], gt_labels, reduction="none")
        return {"loss_bce": (loss * self.sample_weights).mean()}


@REID_HEADS_REGISTRY.register()
class MiniAttrHead(EmbeddingHead):
    def forward(self, features: Tensor, targets: Tensor | None = None) -> Any:
        logits = F.linear(self.bottleneck(self.pool_layer(features)).flatten(1), self.weight)
        return {"logits": logits} if self.training else torch.sigmoid(logits)


class WithAttributes(CommDataset):
    """``(path, label vector)``; has no identities and no cameras."""

    def __init__(self, items: list[tuple[str, list[float]]], transform: Any) -> None:
        self.img_items, self.transform, self.relabel = items, transform, False

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, labels = self.img_items[index]
        sample = CommDataset([(path, 0, 0)], self.transform)[0]
        return {"images": sample["images"], "targets": torch.tensor(labels), "img_paths": path}

    @property
    def num_classes(self) -> int:
        return ATTRIBUTES


class Shares(DatasetEvaluator):
    def reset(self) -> None:
        self.right: list[Tensor] = []

    def process(self, inputs: dict[str, Any], outputs: Tensor) -> None:
        self.right.extend((outputs.cpu() > 0.5) == (inputs["targets"].cpu() > 0.5))

    def evaluate(self) -> OrderedDict[str, Any]:
        share = torch.stack(self.right).float().mean().numpy() * 100
        return OrderedDict(mA=share, metric=share)


def test_label_vectors_and_own_evaluator(cfg: CfgNode, pictures: Any, run: Any) -> None:
    """Patched: label vectors instead of identities go through loader, step and its own evaluator."""
    items = [(path, [float(int(name) >> bit & 1) for bit in range(ATTRIBUTES)]) for path, name in pictures]

    class Trainer(fastreid.engine.DefaultTrainer):
        weights: Tensor | None = None

        @classmethod
        def build_model(cls, cfg: CfgNode) -> nn.Module:
            model = fastreid.engine.DefaultTrainer.build_model(cfg)
            model.sample_weights = Trainer.weights
            return model

        @classmethod
        def build_train_loader(cls, cfg: CfgNode) -> Any:
            Trainer.weights = torch.ones(ATTRIBUTES)
            return build_reid_train_loader(
                cfg, train_set=WithAttributes(items, build_transforms(cfg, is_train=True))
            )

        @classmethod
        def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_folder: str | None = None) -> Any:
            test_set = WithAttributes(items, build_transforms(cfg, is_train=False))
            return build_reid_test_loader(cfg, test_set=test_set)[0], Shares()

    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", "MiniAttrBaseline", "MODEL.HEADS.NAME", "MiniAttrHead"])
    cfg.merge_from_list(
        ["MODEL.HEADS.NUM_CLASSES", ATTRIBUTES, "MODEL.LOSSES.NAME", ("BinaryCrossEntropyLoss",)]
    )
    assert set(run(Trainer, cfg)["DN348"]) == {"mA", "metric"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="it works with CUDA")
def test_its_weighted_loss_needs_cuda() -> None:
    """Dead upstream: its weighted loss puts tensors on "cuda" by name; on a CPU set `MODEL.LOSSES.BCE.WEIGHT_ENABLED`
    False. Its readers of Market and Duke need the package mat4py."""
    with pytest.raises((RuntimeError, AssertionError)):
        torch.where(torch.ones(1) > 0.5, torch.ones(1, device="cuda"), torch.zeros(1, device="cuda"))
