from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("label_growth", ROOT / "tools" / "label_growth.py")
assert spec
assert spec.loader
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)


def test_features_are_unit_rows_and_always_the_same() -> None:
    rows = tool.features(101, 16)
    assert rows.shape == (101, 16) and torch.equal(rows, tool.features(101, 16))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(101))


def test_a_size_is_measured_in_its_own_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--sizes", "300", "--dim", "32", "--threads", "1"])
    tool.main()
    header, _, row = capsys.readouterr().out.strip().splitlines()
    assert [cell.strip() for cell in header.strip("|").split("|")] == list(tool.COLUMNS)
    figures = dict(zip(tool.COLUMNS, (float(cell) for cell in row.strip("|").split("|")), strict=True))
    assert figures["images"] == 300 and figures["clusters"] >= 2
    assert 1 <= figures["entries per image"] <= 300 and figures["search s"] > 0
