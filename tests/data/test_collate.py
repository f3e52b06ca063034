"""Batches are joined or refused; nothing becomes None."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dnreid_plugins.data.collate import LoadFailure, collate


def test_each_known_type() -> None:
    sample = {
        "images": torch.arange(6.0).view(1, 2, 3),
        "array": np.ones(2, dtype=np.int16),
        "targets": 3,
        "wide": np.int64(2**40),
        "score": 0.5,
        "single": np.float32(0.25),
        "flag": True,
        "img_paths": "a.jpg",
        "nested": {"x": 1},
    }
    batch = collate([sample, sample])
    assert batch["images"].shape == (2, 1, 2, 3) and batch["images"].dtype == torch.float32
    assert batch["array"].dtype == torch.int16 and batch["array"].shape == (2, 2)
    assert batch["targets"].tolist() == [3, 3] and batch["targets"].dtype == torch.int64
    assert batch["wide"].tolist() == [2**40] * 2
    assert batch["score"].dtype == batch["single"].dtype == torch.float64
    assert batch["flag"].dtype == torch.bool
    assert batch["img_paths"] == ["a.jpg", "a.jpg"]
    assert batch["nested"]["x"].tolist() == [1, 1]


@pytest.mark.parametrize("value", [None, [1, 2], (1, 2), {1}, b"x", Path("a")])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        collate([{"x": value}, {"x": value}])


def test_mixtures_are_refused() -> None:
    with pytest.raises(TypeError, match="mixes int and .*float"):
        collate([1, 1.5])
    with pytest.raises(ValueError, match="same keys; the first has x"):
        collate([{"x": 1}, {"x": 1, "y": 2}])
    with pytest.raises(ValueError, match="same keys"):
        collate([{"x": 1}, 2])
    with pytest.raises(ValueError, match=r"shapes \[\(3, 1, 2\), \(3, 2, 2\)\]"):
        collate([torch.zeros(3, 2, 2), torch.zeros(3, 1, 2)])


def test_a_failure_is_the_answer() -> None:
    failure = LoadFailure("image 'a.jpg' does not exist")
    assert collate([{"x": 1}, failure, {"x": 2}]) is failure
