from __future__ import annotations

import argparse
import io
import os
from collections import OrderedDict, defaultdict, namedtuple
from enum import IntEnum
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from torch import nn
from yacs.config import CfgNode

from dnreid_plugins.runtime.files import plain, remove_leftovers, write_atomically


class Colour(IntEnum):
    RED = 1


Point = namedtuple("Point", "x y")


def test_a_written_file_is_complete_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.bin", lambda file: file.write(b"new"))
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("x"), KeyboardInterrupt()]
)
def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def write(file: IO[bytes]) -> None:
        file.write(b"half of the new")
        file.flush()
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_leftovers_of_killed_runs_are_removed_and_nothing_else(tmp_path: Path) -> None:
    others = [".download.part", ".hidden", "model_0001.pth"]
    for name in (".model_0001.pth.0123456789abcdef.part", *others):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == others


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (Path("a/b"), "a/b"),
        (Colour.RED, 1),
        (Point(1, np.int32(2)), (1, 2)),
        (CfgNode({"A": {"B": (1, 2)}}), {"A": {"B": (1, 2)}}),
        (defaultdict(list, {"a": [np.int64(1)]}), {"a": [1]}),
        ({Colour.RED: Path("x")}, {1: "x"}),
        (frozenset({1}), {1}),
        (b"bytes", b"bytes"),
        (None, None),
    ],
)
def test_plain_values_survive_the_safe_loader(value: Any, expected: Any) -> None:
    file = io.BytesIO()
    torch.save({"value": plain(value)}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)["value"]
    assert loaded == expected
    assert type(loaded) is type(expected)


@pytest.mark.parametrize("value", [np.zeros(3), argparse.Namespace(a=1), object(), lambda: 0])
def test_what_cannot_be_loaded_again_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(TypeError, match=r"^extra\.list\[1\] is a .*never safely loaded again"):
        plain({"list": [0, value]}, "extra")


def test_a_state_dict_keeps_its_order_and_versions() -> None:
    state = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)).state_dict()
    result = plain(state)
    assert isinstance(result, OrderedDict)
    assert list(result) == list(state)
    assert result._metadata == state._metadata  # type: ignore[attr-defined]
    assert all(result[key] is state[key] for key in state)
