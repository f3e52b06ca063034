"""FastFace: faces, with partial FC."""

from __future__ import annotations

import collections.abc
import importlib
from pathlib import Path
from typing import Any

import fastreid.engine
import pytest
from fastreid.config import CfgNode
from fastreid.engine.train_loop import SimpleTrainer, TrainerBase

from dnreid_plugins.runtime.config_files import ConfigError


def test_names_that_pytorch_dropped(
    as_fastreid: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Patched: `torch._six` and the classes removed from `collections` exist when its modules are imported."""
    (tmp_path / "mini_amp.py").write_text(
        "from torch._six import container_abcs, string_classes\nfrom collections import Mapping\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module: Any = importlib.import_module("mini_amp")
    assert module.container_abcs is collections.abc and isinstance("", module.string_classes)
    assert module.Mapping is collections.abc.Mapping


def test_images_as_they_are_at_test_time(cfg: CfgNode) -> None:
    """Patched: `INPUT.SIZE_TRAIN [0]` with `SIZE_TEST [0]` is accepted."""
    cfg.merge_from_list(["INPUT.SIZE_TRAIN", [0], "INPUT.SIZE_TEST", [0]])
    assert next(iter(fastreid.engine.DefaultTrainer(cfg).data_loader))["images"].shape[1:] == (3, 24, 24)


def test_a_trainer_that_puts_itself_together_is_refused(cfg: CfgNode) -> None:
    """Dead upstream: its test sets are read with bcolz, which has no binary package for today's Python, its
    training set with mxnet, which is retired. Its trainer skips `DefaultTrainer.__init__`: refused at the start.
    """

    class FaceTrainer(fastreid.engine.DefaultTrainer):
        def __init__(self, cfg: CfgNode) -> None:
            TrainerBase.__init__(self)
            loader = self.build_train_loader(cfg)
            model = self.build_model(cfg)
            optimizer, wrapper = self.build_optimizer(cfg, model)
            self._trainer = SimpleTrainer(model, loader, optimizer, wrapper)

    with pytest.raises(ConfigError, match=r"FaceTrainer\.__init__ .* call super\(\)\.__init__\(cfg\)"):
        FaceTrainer(cfg)
