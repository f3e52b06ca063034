"""results.json is written whole or not at all, and says when it was damaged."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dnreid_plugins.engine.evaluate import by_set, numbers
from dnreid_plugins.evaluation.results import log_results, read_results, update_results
from dnreid_plugins.runtime import files
from dnreid_plugins.runtime.files import remove_leftovers


def test_entries_are_merged_and_survive(tmp_path: Path) -> None:
    update_results(str(tmp_path / "out"), start={"A": {}}, seed=0)
    update_results(str(tmp_path / "out"), seed=1)
    assert read_results(str(tmp_path / "out")) == {"start": {"A": {}}, "seed": 1}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.json"]
    update_results("", seed=1)
    assert read_results("") == {}


def test_a_cut_while_writing_keeps_the_old_file_and_leaves_what_a_start_clears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_results(str(tmp_path), seed=0)
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(files.os, "replace", lambda *names: os._exit(0))
        update_results(str(tmp_path), seed=1)
    os.waitpid(child, 0)
    assert read_results(str(tmp_path)) == {"seed": 0}
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    forced: list[int] = []
    monkeypatch.setattr(files.os, "fsync", forced.append)
    update_results(str(tmp_path), seed=2)
    assert len(forced) == 2  # the content, then the folder's new name


@pytest.mark.parametrize("content", [b"", b'{"start": {"DN', b"[1]", b"\xff\xfe"])
def test_a_damaged_file_is_a_warning(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        update_results(str(tmp_path), seed=3)
    assert "results.json cannot be read" in caplog.text and "results before training" in caplog.text
    assert json.loads((tmp_path / "results.json").read_text()) == {"seed": 3}


def test_no_file_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found: dict[str, Any] = read_results(str(tmp_path))
    assert found == {} and not caplog.records


def test_the_table_has_every_figure_once_and_those_of_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = {"A": {"D2N": {"mAP": 1.0}}}
    results = {"A": {"D2N": {"mAP": 2.0, "Rank-1": 3.0, "metric": 2.5}}, "B": {"Acc@1": 4.0, "metric": 4.0}}
    with caplog.at_level(logging.INFO):
        log_results(str(tmp_path), ["A", "B"], results, start=start)
        log_results("", ["A"], {"A": {}})
    record, nothing = caplog.records
    assert "Nothing was scored" in nothing.getMessage()
    rows = [[word.strip() for word in line.split("|")[1:-1]] for line in record.getMessage().splitlines()[1:]]
    assert rows[0] == ["set", "direction", "training", "Rank-1", "mAP", "Acc@1"]
    assert rows[2:] == [
        ["A", "D2N", "before", "", "1.00", ""],
        ["A", "D2N", "after", "3.00", "2.00", ""],
        ["B", "", "after", "", "", "4.00"],
    ]


def test_what_a_script_returns_becomes_plain_figures_by_set(caplog: pytest.LogCaptureFixture) -> None:
    figures = {"mAP": np.float32(1.5), "acc": torch.tensor([2.0]), "n": 3, "curve": np.zeros(2), "name": "x"}
    assert numbers(figures) == {"mAP": 1.5, "acc": 2.0, "n": 3}
    assert "for curve, which is not a number" in caplog.text and "for name" in caplog.text
    assert by_set({"mAP": 1.0}, ["A"]) == by_set({"A": {"mAP": 1.0}}, ["A"]) == {"A": {"mAP": 1.0}}
    assert by_set({"A": {}, "B": {"mAP": 1.0}}, ["A", "B"]) == {"A": {}, "B": {"mAP": 1.0}}
    assert by_set(None, ["A"]) == {"A": {}} and by_set({}, []) == {}
