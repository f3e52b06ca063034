"""FastClas: image classification."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import fastreid.engine
import pytest
from fastreid.config import CfgNode
from fastreid.data import build_reid_test_loader, build_reid_train_loader
from fastreid.data.data_utils import read_image
from fastreid.data.transforms import build_transforms
from fastreid.evaluation.clas_evaluator import ClasEvaluator
from torch.utils.data import Dataset


class Labelled(Dataset):
    """Pictures with a class and no camera."""

    def __init__(self, items: list[tuple[str, str]], transform: Any) -> None:
        self.items, self.transform = items, transform
        self.names = sorted({name for _, name in items})
        self.num_classes = len(self.names)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, name = self.items[index]
        return {
            "images": self.transform(read_image(path)),
            "targets": self.names.index(name),
            "img_paths": path,
        }


def classifier(items: list[tuple[str, str]]) -> type[Any]:
    class Trainer(fastreid.engine.DefaultTrainer):
        names: list[str] = []

        @classmethod
        def build_train_loader(cls, cfg: CfgNode) -> Any:
            train_set = Labelled(items, build_transforms(cfg, is_train=True))
            cls.names = train_set.names
            return build_reid_train_loader(cfg, train_set=train_set)

        @classmethod
        def build_test_loader(cls, cfg: CfgNode, dataset_name: str) -> Any:
            test_set = Labelled(items, build_transforms(cfg, is_train=False))
            return build_reid_test_loader(cfg, test_set=test_set)[0]

        @classmethod
        def build_evaluator(cls, cfg: CfgNode, dataset_name: str, output_dir: str | None = None) -> Any:
            return cls.build_test_loader(cfg, dataset_name), ClasEvaluator(cfg, output_dir)

        @staticmethod
        def auto_scale_hyperparams(cfg: CfgNode, num_classes: int) -> CfgNode:
            cfg = fastreid.engine.DefaultTrainer.auto_scale_hyperparams(cfg, num_classes)
            (Path(cfg.OUTPUT_DIR) / "names.json").write_text(json.dumps(Trainer.names))
            return cfg

    return Trainer


@pytest.fixture
def clas_cfg(cfg: CfgNode) -> CfgNode:
    cfg.merge_from_list(["MODEL.HEADS.NAME", "ClasHead", "MODEL.HEADS.WITH_BNNECK", False])
    cfg.merge_from_list(["INPUT.SIZE_TRAIN", [0], "INPUT.SIZE_TEST", [24]])
    cfg.merge_from_list(["INPUT.CROP.ENABLED", True, "INPUT.CROP.SIZE", [16]])
    return cfg


def test_samples_without_camera_and_own_evaluator(clas_cfg: CfgNode, pictures: Any, run: Any) -> None:
    """Patched: the accuracy `Acc@1` of its own evaluator and loader is the result, not a ranking."""
    found = run(classifier(pictures), clas_cfg)["DN348"]
    assert set(found) == {"Acc@1", "metric"} and 0 <= found["Acc@1"] <= 100
    assert len(json.loads((Path(clas_cfg.OUTPUT_DIR) / "names.json").read_text())) == 10


def test_training_images_of_any_size(clas_cfg: CfgNode, pictures: Any) -> None:
    """Patched: `INPUT.SIZE_TRAIN [0]` means images of their original size, cropped to one size by `INPUT.CROP`."""
    batch = next(iter(classifier(pictures)(clas_cfg).data_loader))
    assert batch["images"].shape[1:] == (3, 16, 16)


def test_its_package_names_a_missing_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dead upstream: its package imports `distracted_driver`, which the repository lacks; remove the line."""
    package = tmp_path / "mini_fastclas"
    package.mkdir()
    (package / "__init__.py").write_text("from .distracted_driver import *\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="distracted_driver"):
        importlib.import_module("mini_fastclas")
    sys.modules.pop("mini_fastclas", None)
