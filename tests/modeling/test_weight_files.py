from __future__ import annotations

import argparse
import os
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dnreid_plugins.runtime.weight_files import WeightFileError, read_weight_file, unwrap


class Payload:
    """A pickle that would run a command on loading."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.marker}",))


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.randn(4, 3), "a.bias": torch.randn(4)}


def test_both_formats_are_read(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save({"model": weights, "epoch": 3}, tmp_path / "w.pth")
    save_file(weights, str(tmp_path / "w.safetensors"))
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for content in (
        read_weight_file(tmp_path / "w.pth")["model"],
        read_weight_file(tmp_path / "w.safetensors"),
        read_weight_file(tmp_path / "old.pth"),
    ):
        assert content.keys() == weights.keys()
        assert all(torch.equal(content[key], weights[key]) for key in weights)


def test_no_code_runs(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    torch.save({"model": {}, "x": Payload(marker)}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(marker), protocol=2))
    for name in ("evil.pth", "evil.pkl"):
        with pytest.raises(WeightFileError, match=r"posix\.system besides tensors and is refused"):
            read_weight_file(tmp_path / name)
    assert not marker.exists()


@pytest.mark.parametrize("value", [argparse.Namespace(a=1), np.zeros(2), Path("x"), np.float64(1)])
def test_foreign_objects_are_refused_in_one_sentence(tmp_path: Path, value: Any) -> None:
    torch.save({"model": {}, "args": value}, tmp_path / "w.pth")
    with pytest.raises(WeightFileError) as caught:
        read_weight_file(tmp_path / "w.pth")
    message = str(caught.value)
    assert "\n" not in message
    assert "is refused" in message
    assert "convert it once" in message


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken", b"\x80\x02}q\x00."])
def test_what_is_no_weight_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=r"w\.pth"):
        unwrap(read_weight_file(path), path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", r"is not a checkpoint \(it is empty\); give a \.pth"),
        (b"\xff\xd8\xff\xe0 a picture", r"is not a checkpoint \(it begins with b'.xff.xd8.*\); give a \.pth"),
        (b"MODEL:\n  DEVICE: cpu\n", r"is not a checkpoint \(it begins with b'MODEL:.*\); give a \.pth"),
        (b"PK\x03\x04 cut short", "is damaged: its end is missing; use another copy"),
        (
            b"\x80\x02garbage",
            r"is damaged or not a PyTorch file \(UnpicklingError: (?!Weights only|In PyTorch)",
        ),
    ],
)
def test_what_kind_of_file_it_is_not(tmp_path: Path, content: bytes, sentence: str) -> None:
    """torch itself advises to load such a file with ``weights_only=False``."""
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightFileError, match=sentence) as caught:
        read_weight_file(path)
    assert "weights_only" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightFileError, match=r"There is no weight file .*absent\.pth"):
        read_weight_file(tmp_path / "absent.pth")


def test_a_flipped_bit_in_the_numbers_is_noticed(tmp_path: Path) -> None:
    """PyTorch alone loads such a file; once it does not, our own comparison of checksums can go."""
    path = tmp_path / "w.pth"
    torch.save({"model": {"a": torch.zeros(10000)}}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["model"]["a"].count_nonzero() == 1
    with pytest.raises(WeightFileError, match="wrong checksum"):
        read_weight_file(path)


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_mutated_bytes_give_the_same_numbers_or_a_clear_error(tmp_path: Path, kind: str) -> None:
    rng = random.Random(0)
    tensor = torch.randn(50, 20)
    path = tmp_path / ("w.pth" if kind == "zip" else "w.safetensors")
    if kind == "zip":
        torch.save({"model": {"a": tensor}, "epoch": 3}, path)
    else:
        save_file({"a": tensor}, str(path))
    original = path.read_bytes()
    outcomes = {"same": 0, "error": 0}
    for trial in range(400):
        content = bytearray(original)
        for _ in range(rng.choice((1, 1, 4))):
            # Headers lie at both ends; the numbers fill the middle.
            low, high = rng.choice(((0, len(content)), (0, 300), (len(content) - 500, len(content))))
            content[rng.randrange(low, high)] = rng.randrange(256)
        if trial % 10 == 0:
            del content[rng.randrange(len(content)) :]
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                loaded = unwrap(read_weight_file(path), path)
        except WeightFileError as error:
            assert "\n" not in str(error)
            outcomes["error"] += 1
        else:
            same = "a" in loaded and torch.equal(loaded["a"], tensor)
            # safetensors has no checksum: other numbers are possible there, code is not.
            assert same or kind == "safetensors"
            outcomes["same"] += 1
    assert min(outcomes.values()) > 0


@pytest.mark.parametrize("wrapper", ["model", "state_dict", "model_state", "model_state_dict", "net"])
def test_wrappings_are_taken_off(weights: dict[str, torch.Tensor], wrapper: str) -> None:
    for content in ({wrapper: weights, "epoch": 1}, {"model": {wrapper: weights}}, weights):
        assert unwrap(content).keys() == weights.keys()


@pytest.mark.parametrize("content", [{}, {"epoch": 1}, [1], None, {"model": 3}])
def test_nothing_to_unwrap_is_an_error(content: Any) -> None:
    with pytest.raises(WeightFileError, match="holds no named tensors"):
        unwrap(content, "x.pth")
