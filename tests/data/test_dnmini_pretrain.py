"""Coarse-attribute pre-training: its parts against closed forms, a short run end to end."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from dnreid_plugins.dnmini.pretrain import (
    MAX_SHIFT,
    PretrainOptions,
    attribute_loss,
    build_plain_backbone,
    photometric_jitter,
    pretrain,
    shift_and_flip,
    write_weights,
)
from dnreid_plugins.dnmini.source import IGNORED, SourceSet, source_set
from dnreid_plugins.modeling.pretrained import load_backbone_weights

SHORT = PretrainOptions(num_ids=4, images_per_id=2, epochs=1, batch_size=4, seed=1)


@pytest.fixture(scope="module")
def source() -> SourceSet:
    return source_set(SHORT.num_ids, SHORT.images_per_id, SHORT.seed, workers=1)


def test_jitter_keeps_the_range_and_its_input_and_follows_the_generator() -> None:
    images = torch.rand(5, 3, 8, 8) * 255
    before = images.clone()
    one, two = (
        photometric_jitter(images, torch.Generator().manual_seed(3), exposure=(0.3, 1.3)) for _ in range(2)
    )
    assert torch.equal(images, before) and torch.equal(one, two) and not torch.equal(one, images)
    assert one.shape == images.shape and one.min() >= 0 and one.max() <= 255


def test_jitter_exposes_within_its_limits() -> None:
    images = torch.full((200, 3, 16, 16), 100.0)
    gains = (
        photometric_jitter(images, torch.Generator().manual_seed(0), exposure=(0.3, 0.6)).mean((1, 2, 3))
        / 100
    )
    assert 0.3 * 0.8 - 0.03 < gains.min() < 0.4 and 0.5 < gains.max() < 0.6 * 1.2 + 0.03


def test_shift_and_flip_only_moves_and_mirrors() -> None:
    image = torch.zeros(1, 3, 40, 40)
    image[:, :, 20, 12] = 1.0
    moved = shift_and_flip(image.repeat(64, 1, 1, 1), torch.Generator().manual_seed(0))
    places = [torch.nonzero(one[0]).tolist() for one in moved]
    assert all(len(place) == 1 for place in places)
    columns = {place[0][1] for place in places}
    assert columns <= set(range(12 - MAX_SHIFT, 13 + MAX_SHIFT)) | set(range(27 - MAX_SHIFT, 28 + MAX_SHIFT))
    assert any(column <= 18 for column in columns) and any(column >= 21 for column in columns)


def test_loss_of_even_logits_is_the_sum_of_log_classes() -> None:
    logits = [torch.zeros(3, 4), torch.zeros(3, 2)]
    labels = torch.tensor([[0, 1], [3, IGNORED], [2, 0]])
    assert attribute_loss(logits, labels).item() == pytest.approx(math.log(4) + math.log(2))


def test_an_attribute_that_nobody_has_adds_nothing() -> None:
    logits = [torch.zeros(2, 4, requires_grad=True), torch.zeros(2, 2, requires_grad=True)]
    labels = torch.tensor([[0, IGNORED], [3, IGNORED]])
    assert attribute_loss(logits, labels).item() == pytest.approx(math.log(4))
    nothing = attribute_loss(logits, torch.full((2, 2), IGNORED))
    nothing.backward()
    assert nothing.item() == 0.0 and logits[0].grad is not None


def test_a_short_run_moves_every_weight_and_repeats_bit_for_bit(source: SourceSet) -> None:
    state, again = pretrain(SHORT, source=source), pretrain(SHORT, source=source)
    start = build_plain_backbone(SHORT).state_dict()
    assert list(state) == list(start)
    moved = [
        not torch.equal(state[name], start[name])
        for name, _ in build_plain_backbone(SHORT).named_parameters()
    ]
    assert all(moved)
    assert all(torch.equal(state[name], again[name]) for name in state)


def test_global_generator_is_left_alone(source: SourceSet) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    pretrain(SHORT, source=source)
    assert torch.equal(torch.rand(3), expected)


def test_fewer_images_than_a_batch_are_refused(source: SourceSet) -> None:
    with pytest.raises(ValueError, match="8 source images are too few for a batch of 64"):
        pretrain(PretrainOptions(), source=source)


def test_weights_are_read_back_completely(tmp_path: Path) -> None:
    state = build_plain_backbone(SHORT).state_dict()
    path = tmp_path / "weights" / "start.safetensors"
    write_weights(state, path, SHORT)
    backbone = build_plain_backbone(PretrainOptions(seed=2))
    load_backbone_weights(backbone, path)
    assert all(np.array_equal(state[name], value) for name, value in backbone.state_dict().items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["num_ids"] == "4" and file.metadata()["depth"] == "0.5x"


def test_weights_of_half_the_size_are_read_exactly(tmp_path: Path) -> None:
    options = replace(SHORT, half=True)
    state = build_plain_backbone(options).state_dict()
    write_weights(state, tmp_path / "half.safetensors", options)
    write_weights(state, tmp_path / "whole.safetensors", SHORT)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (
        tmp_path / "whole.safetensors"
    ).stat().st_size
    backbone = build_plain_backbone(PretrainOptions(seed=2))
    load_backbone_weights(backbone, tmp_path / "half.safetensors")
    for name, value in backbone.state_dict().items():
        expected = state[name].half().to(value.dtype) if value.is_floating_point() else state[name]
        assert value.dtype == state[name].dtype and torch.equal(value, expected)
