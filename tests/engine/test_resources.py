"""What does not fit is refused before the first epoch, with the option that does."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from fastreid.config import CfgNode
from torch import nn

from dnreid_plugins.engine.preflight import resources
from dnreid_plugins.engine.preflight.resources import (
    available_memory,
    checkpoint_bytes,
    disk_objection,
    label_phase_need,
    label_phase_objection,
    trial_batch,
)
from dnreid_plugins.engine.trainer import CrossDomainTrainer
from dnreid_plugins.runtime.config_files import ConfigError
from dnreid_plugins.runtime.devices import GIB


def test_the_machine_says_what_it_has() -> None:
    found = available_memory()
    assert found is None or 2**20 < found < 2**50


def test_the_need_grows_with_images_floats_and_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = label_phase_need((1000, 500), 64, k1=20, rate=1e11)
    features = 4 * 64 * 1500
    own = one.bytes - features
    assert own > 0
    monkeypatch.setattr(resources, "can_share", lambda size: size <= features)
    assert label_phase_need((1000, 500), 64, k1=20, processes=3, rate=1e11).bytes == features + 3 * own
    monkeypatch.setattr(resources, "can_share", lambda size: False)
    assert label_phase_need((1000, 500), 64, k1=20, processes=3, rate=1e11).bytes == 3 * one.bytes
    longer = label_phase_need((1000, 500), 128, k1=20, rate=1e11).bytes - one.bytes
    assert longer in (
        features,
        features + 64 * 1000,
    )  # int8 rows of the larger domain, where int8 is multiplied
    assert label_phase_need((2000, 500), 64, k1=20, rate=1e11).seconds > one.seconds


def test_too_little_memory_names_the_length_that_fits() -> None:
    counts = (3_000_000, 1_000_000)
    text = label_phase_objection(counts, 2048, int(40 * GIB), k1=30)
    assert text is not None and "needs about" in text and "this machine has 40.0 GiB left" in text
    named = int(text.split("EMBEDDING_DIM ")[1].split(" ")[0])
    assert label_phase_objection(counts, named, int(40 * GIB), k1=30) is None
    assert label_phase_objection(counts, 2 * named, int(40 * GIB), k1=30) is not None
    nothing = label_phase_objection(counts, 2048, int(GIB), k1=30, processes=4)
    assert nothing is not None and "no feature length fits" in nothing and "fewer processes" in nothing
    assert label_phase_objection(counts, 2048, None, k1=30) is None
    assert label_phase_objection((10, 10), 64, int(GIB), k1=30) is None


def test_the_size_of_a_checkpoint_is_about_what_is_written(tiny_cfg: CfgNode) -> None:
    tiny_cfg.DATASETS.TESTS = ()
    trainer = CrossDomainTrainer(tiny_cfg)
    trainer.train()
    written = (Path(tiny_cfg.OUTPUT_DIR) / "model_final.pth").stat().st_size
    tensors = checkpoint_bytes(trainer.bare_model, "Adam")
    assert tensors < written < tensors + 120_000  # names, config and generators
    assert checkpoint_bytes(nn.Linear(3, 1), "SGD", cluster_features=5) == 16 + 16 + 5


def test_a_full_disk_is_seen_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 500))
    assert disk_objection(str(tmp_path / "not" / "yet"), 100, 2) is None
    text = disk_objection(str(tmp_path), 101, 2)
    assert text is not None and "SOLVER.CHECKPOINT_KEEP" in text


def test_a_batch_of_noise_changes_nothing(tiny_cfg: CfgNode) -> None:
    model = CrossDomainTrainer(tiny_cfg).bare_model
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert trial_batch(model, 7, [24]) is None
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_batch_of_noise_is_cast_and_split_as_those_of_training(
    tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype | None
) -> None:
    model = CrossDomainTrainer(tiny_cfg).bare_model
    seen, encode = [], model._encode

    def noted(images: torch.Tensor, domains: torch.Tensor, context: Any) -> Any:
        cast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        seen.append((cast, domains.tolist()))
        return encode(images, domains, context)

    monkeypatch.setattr(model, "_encode", noted)
    assert trial_batch(model, 5, [24], amp_dtype=dtype) is None
    assert seen == [(dtype, [0, 0, 0, 1, 1])]


@pytest.mark.parametrize("minutes", [0, 5])
def test_a_checkpoint_inside_an_epoch_holds_the_features_too(
    tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    tiny_cfg.SOLVER.CHECKPOINT_MINUTES = minutes
    model, asked = CrossDomainTrainer(tiny_cfg).bare_model, []
    monkeypatch.setattr(
        resources, "checkpoint_bytes", lambda *_, cluster_features: asked.append(cluster_features) or 0
    )
    resources.check_resources(tiny_cfg, model, (30, 20))
    assert asked == [4 * tiny_cfg.MODEL.BACKBONE.FEAT_DIM * 50 if minutes else 0]


def test_parts_that_do_not_fit_are_said_before_the_first_epoch(tiny_cfg: CfgNode, monkeypatch: Any) -> None:
    tiny_cfg.MODEL.BACKBONE.FEAT_DIM = 17
    with pytest.raises(ConfigError, match="A batch of 16 images of 24 x 24 does not go through.*FEAT_DIM"):
        CrossDomainTrainer(tiny_cfg)
    tiny_cfg.MODEL.BACKBONE.FEAT_DIM = 16

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("dnreid_plugins.modeling.meta_arch.cross_domain.CrossDomainBaseline._encode", full)
    with pytest.raises(ConfigError, match=r"out of memory\); lower SOLVER.IMS_PER_BATCH"):
        CrossDomainTrainer(tiny_cfg)


def test_the_trainer_refuses_what_does_not_fit(tiny_cfg: CfgNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="The label phase needs about"):
        CrossDomainTrainer(tiny_cfg)
