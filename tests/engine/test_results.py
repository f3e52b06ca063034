"""results.json is written whole or not at all, and says when it was damaged."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from dnreid_plugins.engine import files
from dnreid_plugins.engine.files import remove_leftovers
from dnreid_plugins.engine.results import read_results, update_results


def test_entries_are_merged_and_survive(tmp_path: Path) -> None:
    update_results(str(tmp_path / "out"), start={"A": 1}, seed=0)
    update_results(str(tmp_path / "out"), seed=1)
    assert read_results(str(tmp_path / "out")) == {"start": {"A": 1}, "seed": 1}
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
    assert "results.json cannot be read" in caplog.text and "figures of the start" in caplog.text
    assert json.loads((tmp_path / "results.json").read_text()) == {"seed": 3}


def test_no_file_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found: dict[str, Any] = read_results(str(tmp_path))
    assert found == {} and not caplog.records
